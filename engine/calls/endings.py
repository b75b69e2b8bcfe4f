"""Errors that end a call or a run, in the words of events."""

from ..errors import BudgetExceeded, StreamClosed
from ..events import Status
from ..validation.checks import cut_message, name_of


def status_of(error: BaseException | None) -> Status:
    """Derive a status from the exception that ended something, or from None."""
    if error is None:
        return Status.OK
    if _is_all(error, BudgetExceeded):
        return Status.BUDGET_EXCEEDED
    if _is_all(error, StreamClosed):
        return Status.CANCELLED
    # The event loops' cancellation, and Ctrl-C, derive from BaseException alone.
    return Status.ERROR if isinstance(error, Exception) else Status.CANCELLED


def _is_all(error: BaseException, kind: type[Exception]) -> bool:
    """Tell whether this is an exception of a kind, or a group of such alone."""
    return isinstance(error, kind) or (isinstance(error, BaseExceptionGroup) and error.split(kind)[1] is None)


def error_type(error: BaseException) -> str:
    """Find the provider's error code if the exception carries one, else the exception's name.

    Source of the rule: OpenTelemetry GenAI conventions, `error.type` (2026-10-09).
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    try:
        code = getattr(error, "code", None)
    except Exception:  # a property of its own that raises: no reason to lose the event
        code = None
    return name_of(code if code and isinstance(code, str) else type(error).__qualname__)


def error_message(error: BaseException) -> str | None:
    """Take an exception's message, as valid UTF-8 and cut to `MAX_ERROR_MESSAGE` characters."""
    try:
        message = str(error)
    except Exception:
        return None
    return cut_message(message) or None
