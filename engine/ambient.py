"""Tags of the runs that begin in a block of code, whoever begins them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from .validation.checks import check_tags

ambient_tags: ContextVar[Mapping[str, str]] = ContextVar("runmeter_tags", default={})  # noqa: B039 - never changed
"""The tags of runs that begin here, and are given no others."""


@contextmanager
def tags(**given: str) -> Iterator[None]:
    """Give tags to the runs that begin in this block, such as the one of a request that a metered client sends.

        with tags(tenant="acme"):
            client.responses.create(model="gpt-6-luna", input="Hello.")

    Tags within tags add up. A run that is given tags of its own, or that is inside another run, does not take them.

    Raises:
        ConfigurationError: a value is not a string.
    """
    token = ambient_tags.set({**ambient_tags.get(), **check_tags(given)})
    try:
        yield
    finally:
        ambient_tags.reset(token)
