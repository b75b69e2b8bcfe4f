"""HTML as values: whatever is not a piece of HTML already is escaped, so that no text of a ledger becomes markup."""

from collections.abc import Iterable

import msgspec

from runmeter.engine.formats import escape_html

_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})
"""Elements without content. Source: HTML Standard, 13.1.2 "Elements" (2026-11)."""


class Html(str):
    """A piece of HTML. It goes into another as it is; a plain `str` is escaped, and so is what a sum of both gives."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: str | bool | None) -> Html:
    """Make an element.

    Args:
        name: The element's name.
        content: Pieces of HTML, and texts.
        attributes: Their texts. An underscore at the end of a name is left out, any other is a hyphen; True stands for
            an attribute without a value, None and False for none.
    """
    written = "".join(
        f" {key.removesuffix('_').replace('_', '-')}" + ("" if value is True else f'="{escape_html(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def join(content: Iterable[str]) -> Html:
    """Put pieces of HTML and texts one after another."""
    return Html("".join(each if isinstance(each, Html) else escape_html(each) for each in content))


def json_in_html(value: object) -> Html:
    """Write a value as JSON that may stand in a `script` element: `<`, which could end it, is written `\\\\u003c`.

    Raises:
        TypeError: there is no JSON for it.
    """
    return Html(msgspec.json.encode(value).decode().replace("<", "\\u003c"))
