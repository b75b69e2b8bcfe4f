"""Usage in the chunks of a metered client's Chat stream, as other servers than OpenAI's tell it."""

import json
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI
from pattern_support import KEY

from runmeter import Engine, Provenance, TokenUsage, Usage, meter
from runmeter.engine.testing import Recorder

pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
REPORTED, PARTIAL, UNKNOWN = Provenance.REPORTED, Provenance.PARTIAL, Provenance.UNKNOWN


def chunk(text: str = "", usage: tuple[int, int] | None = None, reason: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]
    return event({"choices": choices, "usage": said(usage)})


def last(*usage: int) -> bytes:
    return event({"choices": [], "usage": said((usage[0], usage[1]))})


def said(usage: tuple[int, int] | None) -> dict[str, int] | None:
    return None if usage is None else {"prompt_tokens": usage[0], "completion_tokens": usage[1]}


def event(more: dict[str, Any]) -> bytes:
    told = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1-mini", **more}
    return f"data: {json.dumps(told, separators=(',', ':'))}\n\n".encode()


DONE = b"data: [DONE]\n\n"
TEXT, END = [chunk("Lyon"), chunk(" it is.")], chunk(reason="stop")
TOTALS = [chunk("Lyon", (8, 1)), chunk(" it is.", (8, 2))]
STREAMS: dict[str, tuple[list[bytes], Provenance, Usage | None]] = {
    "one at the end": ([*TEXT, END, last(8, 2), DONE], REPORTED, Usage(8, 2)),
    "in each": ([*TOTALS, chunk(usage=(8, 2), reason="stop"), DONE], REPORTED, Usage(8, 2)),
    "in each, and once more": ([*TOTALS, END, last(8, 2), DONE], REPORTED, Usage(8, 2)),
    "in each, and zeros at the end": ([*TOTALS, END, last(0, 0), DONE], REPORTED, Usage(8, 2)),
    "first the input alone": ([chunk("Lyon", (8, 0)), END, last(8, 2), DONE], REPORTED, Usage(8, 2)),
    "in each, and cut": (TOTALS, PARTIAL, Usage(8, 2)),
    "in each, and no reason for the end": ([*TOTALS, DONE], PARTIAL, Usage(8, 2)),
    "in each, and an error": ([*TOTALS, event({"error": {"message": "out of order"}})], PARTIAL, Usage(8, 2)),
    "zeros": ([*TEXT, END, last(0, 0), DONE], PARTIAL, Usage(output_tokens=2)),
    "no output": ([*TEXT, END, last(100, 0), DONE], PARTIAL, Usage(output_tokens=2)),
    "no input": ([*TEXT, END, last(0, 20), DONE], PARTIAL, Usage(output_tokens=2)),
}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in pieces"])
@pytest.mark.parametrize(("events", "provenance", "usage"), STREAMS.values(), ids=STREAMS.keys())
async def test_what_a_stream_says_of_its_usage_means_the_same_however_it_is_told(
    events: list[bytes], provenance: Provenance, usage: Usage | None, at_once: bool
) -> None:
    pieces = [b"".join(events)] if at_once else [*events]

    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while pieces:  # once, as from a network: the client looks again after the last event
                yield pieces.pop(0)

    def answer(_: Any) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    recorder = Recorder()
    async with (
        Engine() as engine,
        httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http,
        AsyncOpenAI(api_key=KEY, base_url="http://127.0.0.1:1/v1", http_client=http) as client,
    ):
        engine.subscribe(recorder, name="recorder")
        asked = [{"role": "user", "content": "Where?"}]
        metered: Any = meter(client, provider="openai")
        stream = await metered.chat.completions.create(model="gpt-4.1-mini", messages=asked, stream=True)
        try:
            async for _ in stream:
                pass
        except Exception as error:
            assert "out of order" in str(error)  # noqa: PT017 - raised for one stream of many
        await stream.close()
        cost = engine.usage().total.cost
    [told] = [each for each in recorder.events if isinstance(each, TokenUsage)]
    assert (told.provenance, told.usage) == (provenance, usage)
    assert (cost.usd is not None) == (provenance is REPORTED)
