"""Limits of models: how much they read and write in one turn; and where a request says that the answer is to end."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from runmeter.simulator import Reply, ScriptedCall, Simulator
from runmeter.simulator.model.catalogue import MODELS

WORDS = "word " * 128_000
"""More than gpt-4o reads, with the framing around it."""


def asked(api: str, text: str, **settings: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "gpt-4o", ("input" if api == "responses" else "messages"): messages, **settings}


async def ask(client: AsyncOpenAI, api: str, **settings: Any) -> Any:
    create: Any = client.responses.create if api == "responses" else client.chat.completions.create
    return await create(**settings)


@pytest.mark.parametrize(
    ("api", "param", "message"),
    [
        ("responses", "input", "Your input exceeds the context window of this model"),
        (
            "chat",
            "messages",
            "This model's maximum context length is 128000 tokens. However, your messages",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_too_long_is_refused_and_uses_up_no_reply(
    simulator: Simulator, client: AsyncOpenAI, api: str, param: str, message: str, stream: bool
) -> None:
    simulator.script(Reply("Kept."))
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        await ask(client, api, **asked(api, WORDS), stream=stream)
    assert (caught.value.param, caught.value.code) == (param, "context_length_exceeded")
    assert simulator.statistics().usage == {}
    answer = await ask(client, api, **asked(api, "Hi."))
    assert "Kept." in answer.to_json()


async def test_counting_what_is_too_long_fails_alike(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.input_tokens.count(model="gpt-4o", input=WORDS)
    assert caught.value.code == "context_length_exceeded"


async def test_the_oldest_items_are_left_out_where_that_is_asked_for(simulator: Simulator, client: AsyncOpenAI) -> None:
    half = "word " * 70_000
    items: Any = [{"role": "user", "content": half}, {"role": "user", "content": half}]
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model="gpt-4o", input=items)
    response = await client.responses.create(model="gpt-4o", input=items, truncation="auto")
    assert response.usage is not None
    assert 70_000 < response.usage.input_tokens < 71_000
    assert simulator.statistics().total.input_tokens == response.usage.input_tokens
    with pytest.raises(openai.BadRequestError):  # the last item is never left out
        await client.responses.create(model="gpt-4o", input=WORDS, truncation="auto")


@pytest.mark.parametrize(
    ("api", "limit", "code", "message"),
    [
        ("responses", "max_output_tokens", "integer_above_max_value", "Expected a value <= 16384, but got 16385"),
        ("chat", "max_tokens", "invalid_value", "max_tokens is too large: 16385. This model supports at most 16384"),
        ("chat", "max_completion_tokens", "invalid_value", "max_completion_tokens is too large: 16385"),
    ],
)
async def test_a_limit_that_the_model_never_reaches_is_refused(
    client: AsyncOpenAI, api: str, limit: str, code: str, message: str
) -> None:
    await ask(client, api, **asked(api, "Hi."), **{limit: 16_384})
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        await ask(client, api, **asked(api, "Hi."), **{limit: 16_385})
    assert (caught.value.param, caught.value.code) == (limit, code)


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_no_answer_is_longer_than_the_model_can_write(
    simulator: Simulator, client: AsyncOpenAI, api: str
) -> None:
    simulator.script(Reply("word " * 20_000))
    await ask(client, api, **asked(api, "Go on."))
    assert simulator.statistics().total.output_tokens == 16_384


async def test_nor_than_what_the_window_leaves(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.script(Reply("word " * 20_000))
    completion = await ask(client, "chat", **asked("chat", "word " * 127_000))
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.total_tokens == 128_000


def test_every_model_can_write_something_after_the_longest_input() -> None:
    """And from gpt-5 on the longest answer, as its 272,000 of 400,000 tokens are told."""
    chatting = [model for model in MODELS.values() if not model.dimensions]
    assert all(model.most_input + model.most_output >= model.window for model in chatting)
    assert MODELS["gpt-5"].most_input == 272_000
    assert MODELS["gpt-6-luna"].most_input == 922_000
    assert MODELS["gpt-4.1"].most_input == 1_047_576


# --- Efforts ---


@pytest.mark.parametrize(
    ("model", "effort", "taken"),
    [
        ("gpt-5", "minimal", True),
        ("gpt-5", "xhigh", False),
        ("gpt-6-astra", "max", True),
        ("gpt-6-astra", "minimal", False),
        ("gpt-6.1-sol", "none", False),
        ("o3", "high", True),
        ("o3", "xhigh", False),
        ("gpt-6-luna", "none", True),
    ],
)
@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_an_effort_is_one_that_the_model_takes(
    client: AsyncOpenAI, api: str, model: str, effort: str, taken: bool
) -> None:
    settings: Any = {"reasoning": {"effort": effort}} if api == "responses" else {"reasoning_effort": effort}
    asking = ask(client, api, **{**asked(api, "Hi."), "model": model, **settings})
    if taken:
        await asking
        return
    with pytest.raises(openai.BadRequestError, match=f"'{effort}' is not supported with the '{model}'") as caught:
        await asking
    assert caught.value.code == "unsupported_value"


# --- Where an answer is to end ---


STOPS: list[tuple[Any, str]] = [("b", "a "), (["x", "d", "c"], "a b "), ("z", "a b c d"), ([], "a b c d")]


@pytest.mark.parametrize(("stop", "said"), STOPS)
async def test_an_answer_ends_before_what_it_is_to_stop_at(
    simulator: Simulator, client: AsyncOpenAI, stop: Any, said: str
) -> None:
    simulator.script(Reply("a b c d"))
    answer = await ask(client, "chat", **asked("chat", "Count."), stop=stop)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (said, "stop")
    assert answer.usage.completion_tokens == simulator.statistics().total.output_tokens <= 4


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # openai 3.54 leaves a generator open, and trio says so
@pytest.mark.parametrize(("stop", "said"), STOPS)
async def test_a_stream_ends_there_too(simulator: Simulator, client: AsyncOpenAI, stop: Any, said: str) -> None:
    simulator.script(Reply("a b c d"))
    stream = await ask(client, "chat", **asked("chat", "Count."), stop=stop, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_what_came_after_it_does_not_come(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.script(Reply("a b", tool_calls=(ScriptedCall("look"),)))
    answer = await ask(client, "chat", **asked("chat", "Count."), stop="b")
    assert (answer.choices[0].message.tool_calls, answer.choices[0].finish_reason) == (None, "stop")


@pytest.mark.parametrize(
    ("model", "settings", "param"),
    [
        ("gpt-5", {"stop": "x"}, "stop"),
        ("o3", {"stop": ["x"]}, "stop"),
        ("gpt-5.4", {"stop": "x"}, "stop"),
        ("gpt-5.5", {"stop": "x"}, None),
        ("gpt-4.1", {"stop": "x"}, None),
        ("gpt-5", {"frequency_penalty": 1}, "frequency_penalty"),
        ("gpt-5", {"presence_penalty": 0}, None),
        ("gpt-4.1", {"presence_penalty": 1}, None),
    ],
)
async def test_models_that_reason_do_not_take_every_parameter(
    client: AsyncOpenAI, model: str, settings: dict[str, Any], param: str | None
) -> None:
    asking = ask(client, "chat", **{**asked("chat", "Hi."), "model": model, **settings})
    if param is None:
        await asking
        return
    with pytest.raises(openai.BadRequestError, match=f"'{param}' is not supported with this model") as caught:
        await asking
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
