"""Names of models, and the models that they are versions of."""

import re

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def base_model(name: str) -> str:
    """Find the model that a fine-tuned one was made from: `gpt-4o` of `ft:gpt-4o:acme::7p4lURel`. Other names stay."""
    return name.split(":")[1] if name.startswith("ft:") else name


def undated(name: str) -> str:
    """Strip a name of its version's date: `gpt-4o` of `gpt-4o-2024-11-20`."""
    return _DATE.sub("", name)
