"""HTML as values."""

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.reports.html import Html, element, join, json_in_html

SIGNS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Co", "Cn", "Zs"]) | st.sampled_from("<>&\"'/ ")
)


class Reader(HTMLParser):
    """The elements and the text that a browser would find."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(SIGNS, SIGNS)
def test_texts_stay_texts_however_deep(title: str, content: str) -> None:
    page = Reader(element("p", element("b", content), content, title=title))
    assert page.tags == [("p", {"title": title}), ("b", {})]
    assert page.text == content * 2


def test_a_piece_joined_to_a_text_is_a_text() -> None:
    assert element("p", Html("<b>") + "x") == "<p>&lt;b&gt;x</p>"
    assert join([Html("<br>"), "<br>"]) == "<br>&lt;br&gt;"


def test_attributes_are_named_as_in_html() -> None:
    assert element("th", scope="row", class_="name", aria_label="a", hidden=True, title=None, open=False) == (
        '<th scope="row" class="name" aria-label="a" hidden></th>'
    )
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "\u2028", '"', "\\u003c"])
def test_json_in_html_ends_no_element_and_means_the_same(text: str) -> None:
    written = json_in_html({text: [text]})
    assert "<" not in written
    assert json.loads(written) == {text: [text]}
