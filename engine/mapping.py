"""Running one pattern on many inputs at once."""

from collections.abc import Awaitable, Callable, Iterable, Sized
from typing import Any, Literal, TypeAlias

import anyio

from .errors import ConfigurationError
from .result import RunResult
from .validation.checks import check_number

Progress: TypeAlias = Callable[[int, int | None], object]
"""A function that is told how many runs are done, and of how many (None where the inputs have no length)."""
Outcome: TypeAlias = RunResult[Any] | Exception


async def run_many(
    run: Callable[[Any], Awaitable[RunResult[Any]]],
    inputs: Iterable[Any],
    concurrency: int,
    on_error: Literal["raise", "collect"],
    progress: Progress | None,
) -> list[Outcome]:
    """Call `run` with every input, `concurrency` at a time; see `Engine.map`.

    Raises:
        ConfigurationError: the concurrency is not a positive whole number, the inputs cannot be iterated, or
            there is no such `on_error`.
        Exception: what the inputs or `progress` raised, or the first failing run where errors are not collected.
    """
    _check(inputs, concurrency, on_error)
    total = len(inputs) if isinstance(inputs, Sized) else None
    outcomes: dict[int, Outcome] = {}
    pending = enumerate(inputs)
    failure: Exception | None = None

    async def work() -> None:
        nonlocal failure
        try:
            for index, messages in pending:  # shared: each worker takes the next
                outcomes[index] = await outcome_of(messages)
                if progress is not None:
                    progress(len(outcomes), total)
        except Exception as error:
            failure = failure or error
            tasks.cancel_scope.cancel()

    async def outcome_of(messages: Any) -> Outcome:
        try:
            return await run(messages)
        except Exception as error:
            if on_error == "raise":
                raise
            return error

    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency if total is None else min(concurrency, total)):
            tasks.start_soon(work)
    if failure is not None:
        raise failure
    return [outcomes[index] for index in range(len(outcomes))]


def _check(inputs: object, concurrency: int, on_error: str) -> None:
    check_number("concurrency", concurrency)
    if on_error not in ("raise", "collect"):
        raise ConfigurationError(f"on_error must be 'raise' or 'collect', is {on_error!r}")
    if not isinstance(inputs, Iterable):
        raise ConfigurationError(f"inputs must be an iterable of messages, is {inputs!r:.100}")
