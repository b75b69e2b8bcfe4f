"""Figures as people read them: three digits, and a unit that fits."""

from runmeter.engine.formats import format_count

from .figures import Figure
from .statistics import Interval

UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
NOISY = "too noisy"
NOTHING = "–"


def digits(value: float) -> str:
    """Write a number with three digits that count: `0.0123`, `1.23`, `123`, `12,300`."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    places = 1 if size >= 10 else 2
    while size < 1 and size * 10**places < 100 and places < 6:
        places += 1
    return f"{value:.{places}f}"


def time(value_ns: float) -> str:
    """Write a time in nanoseconds: `84.0 ns`, `3.41 µs`, `2.13 ms`."""
    size, unit = next((pair for pair in UNITS if abs(value_ns) >= pair[0]), UNITS[-1])
    return f"{digits(value_ns / size)} {unit}"


def memory(value: float | None) -> str:
    """Write an amount of bytes in MB."""
    return NOTHING if value is None else f"{value / 1e6:,.0f} MB" if value >= 1e7 else f"{value / 1e6:.1f} MB"


def figure_time(figure: Figure) -> str:
    """Write what a figure tells: a time, what is added, its upper bound, or that it is too noisy."""
    if figure.is_noisy:
        return NOISY
    if figure.is_bound:
        return f"≤ {time(max(0.0, figure.time.high))}"
    return f"{'+' if figure.is_added and figure.time.median > 0 else ''}{time(figure.time.median)}"


def spread(interval: Interval) -> str:
    """Write half of an interval's width, as a share of the median; of few rounds their number."""
    if interval.is_of_few:
        return format_count(interval.count, "round")
    if interval.half_width > abs(interval.median):
        return "> ±100 %"
    return f"±{100 * interval.half_width / abs(interval.median):.0f} %" if interval.median else NOTHING


def figure_spread(figure: Figure) -> str:
    """Write the spread of a figure."""
    return NOTHING if figure.is_bound and not figure.is_noisy else spread(figure.time)


def figure_relative(figure: Figure) -> str:
    """Write a figure against the baseline's."""
    if figure.relative is None:
        return NOTHING
    if figure.is_relative_noisy or figure.is_noisy:
        return NOISY
    if figure.is_bound:
        return f"≤ {100 * max(0.0, figure.relative.high):.1f} %"
    if figure.is_added:
        return f"{100 * figure.relative.median:+.1f} %"
    return f"{digits(figure.relative.median)} ×"


def figure_range(figure: Figure) -> str:
    """Write the interval of a figure against the baseline's."""
    interval = figure.relative
    if interval is None or figure.is_relative_noisy or figure.is_noisy or figure.is_bound or interval.is_of_few:
        return ""
    if figure.is_added:
        return f"{100 * interval.low:+.1f} – {100 * interval.high:+.1f} %"
    return f"{digits(interval.low)} – {digits(interval.high)}"


def percent(share: float) -> str:
    """Write a share in per cent."""
    return f"{100 * share:.1f} %"
