"""Tools that OpenAI itself runs: their names, and what each is in a request.

Source: openai 3.54.0, `types/responses/tool_param.py` (2026-11).
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from runmeter.engine import ConfigurationError

from ..nesting import as_json

_BY_NAME: Mapping[str, Mapping[str, Any]] = {
    "code_interpreter": {"container": {"type": "auto"}},
    "image_generation": {},
    "web_search": {},
    "web_search_2025_08_26": {},
    "web_search_preview": {},
    "web_search_preview_2025_03_11": {},
}
"""Defaults of a definition's fields beside its type."""
_NEEDED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "file_search": (("vector_store_ids",), '{"type": "file_search", "vector_store_ids": ["vs_…"]}'),
    "mcp": (
        ("server_url", "connector_id", "tunnel_id"),
        '{"type": "mcp", "server_label": "…", "server_url": "https://…", "require_approval": "never"}',
    ),
}
"""Tools that a name does not say enough of: what they need one of, and how that is given."""
RUN_HERE = frozenset(
    ("apply_patch", "computer", "computer_use_preview", "custom", "function", "local_shell", "namespace")
)
"""Tools that are run here: the model asks for them at the end of an answer."""


def hosted_tools(tools: Iterable[str | Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Define the tools that OpenAI runs, each given by its name or as a definition.

    Raises:
        ConfigurationError: a name is unknown, a tool needs more than was said, or OpenAI does not run it.
    """
    return tuple(_named(tool) if isinstance(tool, str) else _checked(tool) for tool in tools)


def _named(name: str) -> Mapping[str, Any]:
    if name not in _BY_NAME and name not in _NEEDED and name not in RUN_HERE:
        known = [*_BY_NAME, *_NEEDED]
        like = get_close_matches(name, known, n=1)
        if name == "retrieval":  # its name in the Assistants API before 2024
            like = ["file_search"]
        advice = f"did you mean {like[0]!r}?" if like else f"there are {', '.join(known)}; give another as a dict"
        raise ConfigurationError(f"assistant_tools: no tool of OpenAI's is known by the name {name!r}: {advice}")
    return _checked({"type": name})


def _checked(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = definition.get("type")
    if not isinstance(kind, str):
        raise ConfigurationError('assistant_tools: a definition has no "type", such as "web_search"')
    if kind in RUN_HERE:
        raise ConfigurationError(
            f"assistant_tools: OpenAI does not run {kind!r}, it asks for it: give a function of yours as one of `tools`"
        )
    needed, example = _NEEDED.get(kind, ((), ""))
    if needed and not any(definition.get(name) for name in needed):
        raise ConfigurationError(f"assistant_tools: {kind!r} needs {' or '.join(needed)}: {example}")
    return {**_BY_NAME.get(kind, {}), **as_json(definition, f"assistant_tools: {kind!r}")}
