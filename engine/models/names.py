"""What a model's name says of the model that it is a version of."""

import re

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def base_model(name: str) -> str:
    """The model that a fine-tuned one was made from: `gpt-4o` of `ft:gpt-4o:acme::7p4lURel`. Other names stay."""
    return name.split(":")[1] if name.startswith("ft:") else name


def undated(name: str) -> str:
    """A name without the date of its version: `gpt-4o` of `gpt-4o-2024-11-20`."""
    return _DATE.sub("", name)
