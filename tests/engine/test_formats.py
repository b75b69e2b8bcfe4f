"""Texts from outside, made safe."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine.formats import escape_html, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tenant", "tenant"),
        ("Zoë 😀 日本", "Zoë 😀 日本"),
        ("<b>x</b>", "<b>x</b>"),
        ("red\x1b[31m", r"red\x1b[31m"),
        ("two\r\nlines", r"two\r\nlines"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x9b2J", r"\x9b2J"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_signs_that_steer_a_terminal_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown


class _Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters() | st.sampled_from("<>&\"'/=`")))
def test_any_text_is_text_and_nothing_else_in_a_page(text: str) -> None:
    escaped = escape_html(text)
    page = _Reader(f'<p title="{escaped}">{escaped}</p>')
    assert page.tags == [("p", [("title", printable(text))])]
    assert page.text == printable(text)
