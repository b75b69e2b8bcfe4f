"""The runs that a metering handler was entered in, for callbacks that come without a context."""

from contextvars import Context, copy_context

from runmeter.engine import Execution, current_execution


class EnteredRuns:
    """The runs in whose `with` block a handler is."""

    def __init__(self) -> None:
        self._entered: list[tuple[Execution, Context]] = []

    def __bool__(self) -> bool:
        return bool(self._entered)

    def enter(self) -> None:
        """Take in the current run; outside a run this does nothing."""
        execution = current_execution()
        if execution.is_metered:
            self._entered.append((execution, copy_context()))

    def leave(self) -> Execution | None:
        """Let go of the current run, or if it is not one of them, of the last that was entered.

        Returns:
            The run, if there was one.
        """
        current = current_execution()
        for number in reversed(range(len(self._entered))):
            if self._entered[number][0] is current:
                return self._entered.pop(number)[0]
        return self._entered.pop()[0] if self._entered else None

    def context(self) -> Context | None:
        """A copy of the context in which the handler was entered, if exactly one run that is still open did so.

        With several there is no telling whose a request is, and another tenant must not pay for it.
        """
        contexts = {id(run): context for run, context in tuple(self._entered) if not run.finished}
        return next(iter(contexts.values())).copy() if len(contexts) == 1 else None
