"""Running one pattern on many inputs."""

from collections.abc import Awaitable, Callable, Iterable, Sized
from typing import Any, Literal, TypeAlias

import anyio

from .errors import ConfigurationError
from .result import RunResult

Progress: TypeAlias = Callable[[int, int | None], object]
"""Told how many runs are done, and of how many (None where the inputs have no length)."""
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
        ConfigurationError: the concurrency is not positive, or there is no such `on_error`.
        Exception: what the first failing run raised, where errors are not collected.
    """
    if concurrency < 1 or on_error not in ("raise", "collect"):
        raise ConfigurationError(
            f"concurrency must be at least 1 (is {concurrency}), on_error 'raise' or 'collect' (is {on_error!r})"
        )
    total = len(inputs) if isinstance(inputs, Sized) else None
    outcomes: dict[int, Outcome] = {}
    pending = enumerate(inputs)
    failure: Exception | None = None

    async def work() -> None:
        nonlocal failure
        for index, messages in pending:  # shared: each worker takes the next
            try:
                outcomes[index] = await run(messages)
            except Exception as error:
                if on_error == "raise":
                    failure = failure or error
                    tasks.cancel_scope.cancel()
                    return
                outcomes[index] = error
            if progress is not None:
                progress(len(outcomes), total)

    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency if total is None else min(concurrency, total)):
            tasks.start_soon(work)
    if failure is not None:
        raise failure
    return [outcomes[index] for index in range(len(outcomes))]
