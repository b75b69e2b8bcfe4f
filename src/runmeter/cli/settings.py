"""Settings of a pattern in a TOML file: its config, its tools, and what else its class takes.

Each top-level name is a field of the pattern's config; three are not: `tools`, a list; `options`, what the pattern's
class takes beyond its config; `context`, what a run is told beyond its text. A text `"@module:name"` stands for that
object of Python's, anywhere in the file: modules beside the file are found.
"""

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from runmeter.engine import ConfigurationError
from runmeter.patterns.nesting import TOO_DEEP, check_nesting

REFERENCE = "@"


@dataclass(frozen=True)
class Settings:
    """The settings in a file, with its references looked up."""

    config: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] | None = None


def load_settings(path: Path) -> Settings:
    """Read the settings in a file.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, nests too deeply, or refers to something that is not there.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        check_nesting(data)
    except RecursionError:  # in Python's reader
        raise ConfigurationError(f"{path}: {TOO_DEEP}") from None
    except (OSError, ValueError) as error:  # not text, not TOML, or a number that Python does not read
        raise ConfigurationError(f"{path}: {error}") from None
    folder = str(path.absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = _look_up(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for name, kind, said in (("tools", list, "list"), ("options", dict, "table"), ("context", dict, "table")):
        if not isinstance(found.get(name, kind()), kind):
            raise ConfigurationError(f"{path}: {name} must be a {said}")
    tools, options, context = found.pop("tools", ()), found.pop("options", {}), found.pop("context", None)
    return Settings(found, tuple(tools), options, context)


def _look_up(value: Any) -> Any:
    match value:
        case dict():
            return {name: _look_up(each) for name, each in value.items()}
        case list():
            return [_look_up(each) for each in value]
        case str() if value.startswith(REFERENCE) and ":" in value:
            return _object(value.removeprefix(REFERENCE))
        case _:
            return value


def _object(reference: str) -> Any:
    module, _, name = reference.partition(":")
    try:
        return attrgetter(name)(import_module(module))
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigurationError(f"{REFERENCE}{reference}: {type(error).__name__}: {error}") from error
