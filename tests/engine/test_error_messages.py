"""Messages of errors: what an engine publishes of them, one switch for everything that is made of events."""

from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from runmeter.engine import ConfigurationError, Engine, Event, ModelRequest, current_execution
from runmeter.engine.event_log import NAME, EventLog, read_events
from runmeter.engine.testing import Recorder
from runmeter.engine.validation.error_messages import mask

SECRET = "sk-proj-MARKED0123456789"
REQUEST = ModelRequest(provider="openai", model="gpt-4.1-mini")


def refused() -> openai.BadRequestError:
    response = httpx2.Response(400, request=httpx2.Request("POST", "https://api.openai.com"))
    return openai.BadRequestError(f"Incorrect API key provided: {SECRET}. Unknown model.", response=response, body=None)


async def fails_everywhere(messages: Any, context: Any) -> None:
    run = current_execution()
    for operation in (run.function_call("send"), run.retrieval("local"), run.assistant_run("Ann")):
        with pytest.raises(ValueError, match="MARKED"), operation:
            raise ValueError(f"dinner with Ann: {SECRET}")
    with run.function_call("send") as call:
        call.fail("ToolFailed", f"dinner with Ann: {SECRET}")
    with pytest.raises(openai.BadRequestError), run.model_call(REQUEST):
        raise refused()
    raise ValueError(f"dinner with Ann: {SECRET}")


async def events_of(choice: Any, path: Path) -> list[Event]:
    recorder = Recorder()
    with EventLog(path) as log:
        async with Engine(error_messages=choice) as engine:
            engine.subscribe(recorder, name="recorder", lane="lossless")
            engine.subscribe(log, name=NAME, lane="lossless")
            with pytest.raises(ValueError, match="MARKED"):
                await engine.run(fails_everywhere, "")
    assert list(read_events(path, lambda *_: pytest.fail("damaged"))) == recorder.events
    return recorder.events


def messages_of(events: list[Event]) -> list[str | None]:
    assert [event.error_type for event in events if getattr(event, "error_type", None)] == [  # type: ignore[union-attr]
        *["ValueError"] * 3,
        "ToolFailed",
        "BadRequestError",
        "ValueError",
    ]
    return [event.error_message for event in events if getattr(event, "error_type", None)]  # type: ignore[union-attr]


async def test_by_default_the_words_of_the_api_stay_and_no_secret_and_no_content(tmp_path: Path) -> None:
    events = await events_of("masked", tmp_path / "events.jsonl")
    assert messages_of(events) == [*[None] * 4, "Incorrect API key provided: ***. Unknown model.", None]
    assert b"MARKED" not in (tmp_path / "events.jsonl").read_bytes()
    assert b"dinner" not in (tmp_path / "events.jsonl").read_bytes()


async def test_messages_can_be_kept_left_out_or_edited(tmp_path: Path) -> None:
    full = messages_of(await events_of("full", tmp_path / "full.jsonl"))
    assert all(message and SECRET in message for message in full)
    assert messages_of(await events_of("off", tmp_path / "off.jsonl")) == [None] * 6

    def edit(kind: str, message: str) -> str | None:
        if kind == "BadRequestError":
            raise LookupError("no word for it")
        return f"{kind}, {len(message)} characters" if kind == "ToolFailed" else None

    edited = messages_of(await events_of(edit, tmp_path / "edited.jsonl"))
    assert edited == [None, None, None, "ToolFailed, 41 characters", None, None]
    with pytest.raises(ConfigurationError, match="error_messages"):
        Engine(error_messages="some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key sk-abcdefgh12345678 is wrong", "key *** is wrong"),
        ("GET https://ann:pa55@host/x failed", "GET https://***@host/x failed"),
        ("cannot reach ann:pa55word@host", "cannot reach ***@host"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ('{"api_key": "hello-world", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("password=hunter2&x=1", "password=***&x=1"),
        ("jwt eyJhbGciOi.eyJzdWIi.c2ln", "jwt ***"),
        ("secret " + "a1" * 25, "secret ***"),
        ("response resp_" + "a1" * 25 + " is gone", "response resp_" + "a1" * 25 + " is gone"),
        ("run " + "a1" * 16 + " took longer than 5 s", "run " + "a1" * 16 + " took longer than 5 s"),
        ("maximum context length is 128000 tokens", "maximum context length is 128000 tokens"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked
