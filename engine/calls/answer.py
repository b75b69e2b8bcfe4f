"""The answer to a request, as a model call records it: what is sound of it."""

import msgspec

from ..errors import ConfigurationError
from ..events import Provenance
from ..validation.checks import Counts, Id, Message, Name


class SoundAnswer(msgspec.Struct, gc=False):
    """The form of what a call says at its end that an event takes."""

    usage: Counts | None
    response_id: Id | None
    response_model: Name | None
    service_tier: Name | None
    finish_reasons: tuple[Name, ...]
    bound: Counts | None
    error_type: Name | None
    error_message: Message | None


RECORDED: dict[str, Provenance] = {
    provenance: provenance for provenance in Provenance if provenance is not Provenance.UNKNOWN
}
"""The provenances that a usage is recorded with, by their names."""


def shown(value: object) -> str:
    """Show a number, or of any other value, which might be content, the type."""
    return repr(value)[:40] if value is None or isinstance(value, int | float) else type(value).__name__


def refused(provenance: object) -> Provenance:
    """Refuse a provenance that no usage is recorded with. Raises ConfigurationError."""
    raise ConfigurationError(f"provenance is reported, partial or estimated, not {provenance!r:.100}")


def served(answered: str | None, requested: str | None, assumed: str | None) -> str | None:
    """Find the tier that served, None where that is not known; `auto` is not a tier, but a way to choose one."""
    if answered and answered != "auto":
        return answered
    return requested if requested and requested != "auto" else assumed
