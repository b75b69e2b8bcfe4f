// Draws each chart in the element of its name. Vega evaluates expressions by an interpreter: the page forbids eval.
const data = JSON.parse(document.getElementById("charts").textContent);
const options = {
  config: data.config,
  mode: "vega-lite",
  renderer: "svg",
  actions: false,
  ast: true,
  defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};
const drawn = Object.entries(data.charts).map(([name, spec]) => {
  const place = document.getElementById(name);
  return vegaEmbed(place, spec, options).catch((error) => {
    place.textContent = `This chart could not be drawn (${error.message}); its figures are in the table.`;
  });
});
Promise.all(drawn).then(() => document.documentElement.setAttribute("data-drawn", drawn.length));
