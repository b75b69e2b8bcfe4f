"""One call of a metered client's method: all attempts at one request, in a run of their own where they are in none."""

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context

from runmeter.engine import Execution, ambient_run, call_at_close, forget_close

from .trouble import trouble


class ClientCall:
    """A call of a client's method. Outside all runs it has one, from its first request to its end."""

    # Defaults of the class, as most calls need few of them.
    attempts = 0
    """Requests that it has sent."""
    ends_with_stream = False
    """True if it ends with its request; once its answer is a stream, it ends with that."""
    give_up: Callable[[], object] | None = None
    """Ends the request that is under way, or was the last, without its answer."""
    _run: Execution | None = None
    _context: Context | None = None

    def enter(self, name: str) -> tuple[Execution, Context] | None:
        """Enter the run, if that has not been done, in a context of its own. None if no engine is current."""
        run, context = self._run, self._context
        if run is None or context is None:
            run = ambient_run(name, "openai")
            if run is None:
                return None
            context = copy_context()
            self._run, self._context = run, context
            context.run(run.__enter__)
            call_at_close(run.runtime.owner, self.close)
        return run, context

    def returned(self) -> None:
        """Take that the client's method has returned: with a whole answer, or with a stream that goes on."""
        if self._run is not None and not self.ends_with_stream:
            self.end(None)

    def end(self, error: BaseException | None) -> None:
        """Leave the run, if there is one. What comes later comes too late."""
        run, context = self._run, self._context
        if run is None or context is None:
            return
        self._run = self._context = None
        forget_close(self.close)
        context.run(run.__exit__, type(error) if error else None, error, error.__traceback__ if error else None)

    def close(self) -> None:
        """End with the engine, which closes: an answer that comes later is counted nowhere."""
        try:
            if self.give_up is not None:
                self.give_up()
        except Exception as error:
            trouble.note(error)
        finally:
            self.end(None)


client_call: ContextVar[ClientCall | None] = ContextVar("runmeter_client_call", default=None)
"""The call of the client's that a request belongs to."""
