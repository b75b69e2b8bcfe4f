"""What the real service does and this one does not: refused by its name, and never ignored."""

from typing import Any

import httpx2
import pytest

from runmeter.simulator import Simulator
from runmeter.simulator.app import ENDPOINTS, NOT_SIMULATED, NOT_SIMULATED_RESOURCES
from runmeter.simulator.objects.input_items import OTHERS as OTHER_ITEMS
from runmeter.simulator.requests.tools import HOSTED
from runmeter.simulator.requests.tools import OTHERS as OTHER_TOOLS

KEY = {"authorization": "Bearer sk-simulated"}
IMAGE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAYAAAB/HSuD"
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
NAMED = {"type": "function", "function": {"name": "look"}}


def said(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


RESPONSES: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": {"id": "pmpt_1"}}, "'prompt'", "prompt"),
    ({"background": True}, "responses in the background", "background"),
    ({"moderation": {"model": "omni-moderation-latest"}}, "'moderation'", "moderation"),
    ({"context_management": [{"type": "compaction"}]}, "'context_management'", "context_management"),
    ({"image": {"context_compression": "auto"}}, "'image'", "image"),
    ({"include": ["message.output_text.logprobs"]}, "log probabilities", "include"),
    ({"top_logprobs": 3}, "log probabilities", "top_logprobs"),
    ({"reasoning": {"mode": "pro"}}, "reasoning in mode 'pro'", "reasoning.mode"),
    ({"prompt_cache_options": {"mode": "explicit"}}, "a prompt cache that is warmed", "prompt_cache_options"),
    ({"tools": [LOOK], "tool_choice": {"type": "web_search_preview"}}, "a call of a tool of type", "tool_choice"),
    ({"tools": [LOOK], "tool_choice": {"type": "custom", "name": "x"}}, "a call of a tool of type", "tool_choice"),
    ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "a call of a tool that OpenAI", "tool_choice"),
    ({"tools": [{**LOOK, "defer_loading": True}]}, "functions that are deferred", "tools[0]"),
    ({"tools": [{**LOOK, "async": True}]}, "functions that are deferred", "tools[0]"),
    (
        {"input": said({"type": "input_image", "image_url": "https://x/y.png"})},
        "an image that is",
        "input[0].content[0]",
    ),
    ({"input": said({"type": "input_image", "file_id": "file-1"})}, "an image", "input[0].content[0]"),
    ({"input": said({"type": "input_file", "file_data": "data:,"})}, "a file in a message", "input[0].content[0]"),
    ({"input": said({"type": "input_audio", "input_audio": {}})}, "a sound in a message", "input[0].content[0]"),
    *(({"tools": [{"type": kind}]}, f"a tool of type '{kind}'", "tools[0].type") for kind in sorted(OTHER_TOOLS)),
    *(
        ({"input": [{"type": kind, "output": {}}]}, f"an item of type '{kind}'", "input[0].type")
        for kind in sorted(OTHER_ITEMS)
    ),
]
CHAT: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 2}, "more than one choice", "n"),
    ({"logprobs": True, "top_logprobs": 2}, "log probabilities", "logprobs"),
    ({"logit_bias": {"1": -100}}, "'logit_bias'", "logit_bias"),
    ({"functions": [{"name": "look"}]}, "'functions'", "functions"),
    ({"prediction": {"type": "content", "content": "x"}}, "'prediction'", "prediction"),
    ({"web_search_options": {"user_location": None}}, "'web_search_options'", "web_search_options"),
    ({"modalities": ["text", "audio"]}, "answers that are spoken", "modalities"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "a tool of type 'custom'", "tools[0].type"),
    ({"tools": [NAMED], "tool_choice": {"type": "custom"}}, "a tool of type 'custom'", "tool_choice"),
    (
        {"messages": said({"type": "image_url", "image_url": {"url": "https://x"}})},
        "an image",
        "messages[0].content[0]",
    ),
    ({"messages": said({"type": "file", "file": {}})}, "a file in a message", "messages[0].content[0]"),
    ({"messages": [{"role": "function", "name": "x", "content": "y"}]}, "a message of role", "messages[0].role"),
    (
        {"messages": [{"role": "assistant", "function_call": {"name": "x", "arguments": ""}}]},
        "'function_call' in a message",
        "messages[0].function_call",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {}}]}]},
        "a tool call of type 'custom'",
        "messages[0].tool_calls[0].type",
    ),
]


async def ask(simulator: Simulator, path: str, body: dict[str, Any]) -> httpx2.Response:
    usual = {"input": "Hi."} if path == "/responses" else {"messages": [{"role": "user", "content": "Hi."}]}
    async with httpx2.AsyncClient(headers=KEY, base_url=simulator.url) as http:
        return await http.post(path, json={"model": "gpt-4.1", **usual, **body})


@pytest.mark.parametrize(
    ("path", "body", "what", "param"),
    [*(("/responses", *each) for each in RESPONSES), *(("/chat/completions", *each) for each in CHAT)],
    ids=lambda each: str(each)[:50],
)
async def test_it_is_refused_by_name(
    simulator: Simulator, path: str, body: dict[str, Any], what: str, param: str
) -> None:
    response = await ask(simulator, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "not_simulated", param), error
    assert error["message"].startswith(f"not simulated: {what}")
    assert simulator.statistics().usage == {}


@pytest.mark.parametrize("kind", HOSTED)
async def test_a_tool_that_openai_runs_is_taken_and_not_used(simulator: Simulator, kind: str) -> None:
    needed = {key.rstrip("!"): ["x"] for key in HOSTED[kind].split() if key.endswith("!")}
    taken = await ask(simulator, "/responses", {"tools": [{"type": kind, **needed}]})
    assert taken.status_code == 200
    assert [item["type"] for item in taken.json()["output"]] == ["message"]
    unknown = await ask(simulator, "/responses", {"tools": [{"type": kind, **needed, "newer": 1}]})
    assert unknown.json()["error"]["param"] == "tools[0].newer"
    for name in needed:
        lacking = await ask(simulator, "/responses", {"tools": [{"type": kind, **needed, name: None}]})
        assert lacking.json()["error"]["code"] == "missing_required_parameter"


async def test_an_image_that_the_request_holds_is_billed(simulator: Simulator) -> None:
    text = {"type": "input_text", "text": "What is it?"}
    plain = (await ask(simulator, "/responses", {"input": said(text)})).json()["usage"]["input_tokens"]
    image = {"type": "input_image", "image_url": IMAGE}
    shown = (await ask(simulator, "/responses", {"input": said(text, image)})).json()["usage"]["input_tokens"]
    chat_image = {"type": "image_url", "image_url": {"url": IMAGE}}
    chat = await ask(
        simulator, "/chat/completions", {"messages": said({"type": "text", "text": "What is it?"}, chat_image)}
    )
    assert shown == chat.json()["usage"]["prompt_tokens"]
    assert shown - plain == 765  # 1,024 x 1,024 pixels, by the published rule of gpt-4.1


PLACES = [
    *NOT_SIMULATED,
    *((method, f"/{name}{rest}") for name in NOT_SIMULATED_RESOURCES for method, rest in (("POST", ""), ("GET", "/x"))),
]


async def test_endpoints_that_are_not_simulated_say_so(simulator: Simulator) -> None:
    async with httpx2.AsyncClient(headers=KEY, base_url=simulator.url) as http:
        for method, path in PLACES:
            answer = await http.request(method, path)
            assert answer.status_code == 400, (method, path)
            assert answer.json()["error"]["message"] == f"not simulated: {method} /v1{path}"
        assert (await http.get("/no_such_thing")).status_code == 404
    assert not {(method, path) for method, path, _ in ENDPOINTS} & set(NOT_SIMULATED)
