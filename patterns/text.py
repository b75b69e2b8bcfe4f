"""Text that can be sent: what cannot be written as UTF-8 would fail far from its cause."""

from collections.abc import Mapping
from typing import Any


def valid_text(text: str) -> str:
    """Replace each lone surrogate in a text by a question mark: models and file names are where these come from."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def valid(value: Any) -> Any:
    """Make every text in a JSON value valid, its keys included."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, Mapping):
        return {valid(name): valid(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [valid(each) for each in value]
    return value
