"""What can go wrong, each with a sentence of its own.

RunmeterError
├── EngineNotRunning     the engine was used before `async with` or after it
├── BusClosed            an event was published after the bus had closed
├── RunAborted           the engine closed before the run was done
├── StrayCancellation    a pattern awaited something that somebody else had cancelled
├── RunTimeout           a run took longer than its timeout (also a TimeoutError)
├── TokenizerError       a shipped vocabulary is missing or damaged
└── ConfigurationError   arguments that contradict each other (also a ValueError)
"""


class RunmeterError(Exception):
    """Base of every error this package raises for reasons of its own."""


class EngineNotRunning(RunmeterError):
    """The engine was used before it started, after it closed, or away from its event loop."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the engine cannot run anything: {why}. Use it inside `async with Engine() as engine:`")


class BusClosed(RunmeterError):
    """An event was published after the bus had closed, so no subscriber would see it."""

    def __init__(self) -> None:
        super().__init__(
            "the bus has closed: publish inside `async with`, or await what still publishes before leaving it"
        )


class RunTimeout(RunmeterError, TimeoutError):
    """A run took longer than the timeout it was given."""

    def __init__(self, pattern: str, run_id: str, timeout: float) -> None:
        super().__init__(f"pattern {pattern!r} did not finish within its timeout of {timeout:g} s")
        self.pattern = pattern
        self.run_id = run_id
        self.timeout = timeout
        """In seconds."""


class RunAborted(RunmeterError):
    """The engine closed before the run was done, and its drain timeout had passed."""

    def __init__(self, pattern: str, run_id: str) -> None:
        super().__init__(f"pattern {pattern!r} was stopped: the engine closed, and its drain_timeout had passed")
        self.pattern = pattern
        self.run_id = run_id


class StrayCancellation(RunmeterError):
    """A pattern awaited a task or future that somebody else had cancelled, and was not cancelled itself."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"pattern {pattern!r} awaited something that had been cancelled elsewhere")
        self.pattern = pattern


class TokenizerError(RunmeterError):
    """A shipped vocabulary is missing or damaged: reinstall the package."""


class ConfigurationError(RunmeterError, ValueError):
    """Arguments that contradict each other or lie outside their range."""
