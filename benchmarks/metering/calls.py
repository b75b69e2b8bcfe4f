"""The requests that every peer makes, word for word the same, and the cases made of them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from stub import MODEL, QUESTION, Stub
from worker import Bench, Work

INPUT_TOKENS = 40
"""What the stub says that each request used."""

Call: TypeAlias = Callable[[], Awaitable[object]]
Settle: TypeAlias = Callable[[int], Awaitable[None]]
"""Ends what goes on in the background, after so many calls, and raises if those have not all been metered."""


def ask_chat(client: Any, *, stream: bool = False) -> Awaitable[Any]:
    """Ask by Chat Completions. A stream is asked for its usage, or it would not tell."""
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": QUESTION}], **more)


def ask_responses(client: Any, *, stream: bool = False) -> Awaitable[Any]:
    """Ask by Responses."""
    more = {"stream": True} if stream else {}
    return client.responses.create(model=MODEL, input=[{"role": "user", "content": QUESTION}], **more)


def client_calls(client: Any) -> Mapping[str, Call]:
    """What an application does, whether somebody looks on or not."""

    async def stream_chat() -> None:
        async for _ in await ask_chat(client, stream=True):
            pass

    async def stream_responses() -> None:
        async for _ in await ask_responses(client, stream=True):
            pass

    return {
        "chat call": lambda: ask_chat(client),
        "responses call": lambda: ask_responses(client),
        "50-chunk chat stream": stream_chat,
        "50-chunk responses stream": stream_responses,
    }


def bench(
    stub: Stub,
    calls: Mapping[str, Call],
    settle: Settle | None = None,
    close: Callable[[], Awaitable[object]] | None = None,
) -> Bench:
    """The cases: a call so many times, one after the other, and then what was put off."""
    return Bench({name: _repeated(call, settle) for name, call in calls.items()}, asked=stub.asked, close=close)


def _repeated(call: Call, settle: Settle | None) -> Work:
    async def work(times: int) -> None:
        for _ in range(times):
            await call()
        if settle is not None:
            await settle(times)

    return work
