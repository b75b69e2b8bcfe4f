"""Retirements of OpenAI's models, past and announced: the table that ships with the package.

The table is `models.toml`, which says where its facts are from, and when they were looked up.
"""

import functools
from collections.abc import Mapping
from datetime import date
from types import MappingProxyType

import msgspec

from .names import base_model, undated

NOTICE_DAYS = 90
"""Days before a model's shutdown from which on there is a notice."""


class Retirement(msgspec.Struct, frozen=True):
    """The shutdown of a model, and its replacement."""

    model: str
    shutdown: date
    """The first day on which requests to it are refused."""
    replacement: str
    """OpenAI's recommendation, or the current model of its size."""
    source: str
    """The date's source, and the day that it was read."""

    def is_retired(self, today: date) -> bool:
        """Tell whether the model has been shut down."""
        return self.shutdown <= today

    def is_retiring(self, today: date) -> bool:
        """Tell whether the model will be shut down within `NOTICE_DAYS`."""
        return 0 < (self.shutdown - today).days <= NOTICE_DAYS


class _Shutdown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    date: date
    replacement: str
    models: tuple[str, ...]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of `models.toml`."""

    source: str
    checked: date
    """The day that the source was last looked up."""
    shutdowns: tuple[_Shutdown, ...]


@functools.cache
def table() -> Table:
    """Read the shipped table. It is read on first use, in about a millisecond."""
    from importlib.resources import files  # here, with all that it imports, because it is slow

    return msgspec.toml.decode((files(__package__) / "models.toml").read_bytes(), type=Table)


@functools.cache
def retirements() -> Mapping[str, Retirement]:
    """Index the models that have been shut down or are going to be, by name."""
    read = table()
    source = f"{read.source} ({read.checked})"
    return MappingProxyType(
        {
            model: Retirement(model, shutdown.date, shutdown.replacement, source)
            for shutdown in read.shutdowns
            for model in shutdown.models
        }
    )


def find(model: str) -> Retirement | None:
    """Find the retirement of a model; None if none was announced.

    A dated version that is not listed goes with its undated name, and a fine-tuned model with the one it is based on
    (source: OpenAI's deprecations page, 2026-11).

    Args:
        model: A model's name: `gpt-4o`, `gpt-4o-2024-11-20`, `ft:gpt-4o:acme::7p4lURel`.
    """
    base = base_model(model)
    found = retirements()
    return found.get(base) or found.get(undated(base))
