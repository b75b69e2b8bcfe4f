"""What the simulator refuses, as the real service does: parameters, keys, names, schemas, choices."""

import itertools
from typing import Any, get_args

import httpx2
import pytest
from openai.types import EmbeddingCreateParams
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageParam
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses import (
    EasyInputMessageParam,
    InputTokenCountParams,
    ResponseFunctionToolCallParam,
    ResponseOutputMessageParam,
    ResponseReasoningItemParam,
)
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.response_input_param import FunctionCallOutput
from simulator_support import TLS

from runmeter.simulator import Simulator
from runmeter.simulator.endpoints import chat
from runmeter.simulator.endpoints.chat import CreateChatCompletion
from runmeter.simulator.endpoints.embeddings import CreateEmbedding
from runmeter.simulator.endpoints.responses import CountInputTokens, CreateResponse
from runmeter.simulator.objects import input_items

KEY = {"authorization": "Bearer sk-simulated"}
HELLO = {"role": "user", "content": "Hi."}
ASKED = {"/responses": {"input": [HELLO]}, "/chat/completions": {"messages": [HELLO]}}
CALLED = {"type": "function_call", "call_id": "1", "name": "f"}


@pytest.mark.parametrize(
    ("path", "settings", "param", "code"),
    [
        ("/responses", {"newer": {"x": []}}, "newer", "unknown_parameter"),
        ("/responses/input_tokens", {"newer": 1}, "newer", "unknown_parameter"),
        ("/chat/completions", {"newer": 1}, "newer", "unknown_parameter"),
        ("/embeddings", {"model": "text-embedding-3-small", "input": "a", "newer": 1}, "newer", "unknown_parameter"),
        ("/responses", {"input": [{**HELLO, "name": "Ada"}]}, "input[0].name", "unknown_parameter"),
        ("/responses", {"input": [HELLO, {**CALLED, "arguments": "", "x": 1}]}, "input[1].x", "unknown_parameter"),
        ("/responses", {"input": [CALLED]}, "input[0].arguments", "missing_required_parameter"),
        ("/responses", {"input": [{"content": "Hi."}]}, "input[0].role", "missing_required_parameter"),
        ("/responses", {"input": [{"role": "wizard", "content": "Hi."}]}, "input[0].role", "invalid_value"),
        ("/responses", {"input": [5]}, "input[0]", "invalid_type"),
        ("/responses", {"input": None}, None, "missing_required_parameter"),
        ("/responses", {"input": []}, None, "missing_required_parameter"),
        ("/responses", {"prompt": {"id": "pmpt_1"}}, "prompt", None),
        ("/responses", {"temperature": 5}, "temperature", "decimal_above_max_value"),
        ("/responses", {"top_p": -0.5}, "top_p", "decimal_below_min_value"),
        ("/chat/completions", {"temperature": -1}, "temperature", "decimal_below_min_value"),
        ("/chat/completions", {"messages": []}, "messages", "empty_array"),
        ("/chat/completions", {"messages": [{**HELLO, "x": 1}]}, "messages[0].x", "unknown_parameter"),
        ("/chat/completions", {"messages": [{"role": "wizard"}]}, "messages[0].role", "invalid_value"),
        ("/chat/completions", {"max_completion_tokens": -3}, "max_completion_tokens", "integer_below_min_value"),
        ("/chat/completions", {"model": "gpt-4.1", "max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ],
)
async def test_what_the_api_does_not_take_is_refused_in_its_shape(
    simulator: Simulator, path: str, settings: dict[str, Any], param: str | None, code: str | None
) -> None:
    body = {"model": "gpt-6-luna", **ASKED.get(path, {}), **settings}
    async with httpx2.AsyncClient(verify=TLS, headers=KEY) as http:
        response = await http.post(f"{simulator.url}{path}", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code)


async def test_a_body_nested_too_deeply_is_refused(simulator: Simulator) -> None:
    body = b'{"model": "gpt-6-luna", "text": {"x": %s}}' % (b"[" * 20_000)
    async with httpx2.AsyncClient(verify=TLS, headers=KEY) as http:
        response = await http.post(f"{simulator.url}/responses", content=body)
    assert response.status_code == 400


POSTS = [
    *("/responses", "/responses/input_tokens", "/chat/completions", "/embeddings", "/files", "/conversations"),
    *("/conversations/{conversation}", "/conversations/{conversation}/items"),
    *("/vector_stores", "/vector_stores/{store}/search", "/vector_stores/{store}/files"),
]
NO_BODIES = [
    *(
        b"\xff",
        b'"\xff"',
        b'{"model": "\xff"}',
        b'{"\xff": 1}',
        b'{"conversation": "\xff"}',
        b'{"query": "\xed\xa0\x80"}',
        b'{"query": "\\ud800"}',
    ),
    *(b"null", b"5", b'"x"', b"[]", b"NaN", b'{"x": NaN}', b'{"x": 1e999}', b"{", b"1" * 5_000),
    *(b"[" * 50_000, b'{"x":' * 50_000, b'{"filters":{"filters":[' + b'{"filters":[' * 50_000),
]


@pytest.mark.parametrize("path", POSTS)
async def test_what_is_no_request_at_all_is_refused_and_never_breaks(simulator: Simulator, path: str) -> None:
    async with httpx2.AsyncClient(verify=TLS, headers=KEY, base_url=simulator.url) as http:
        conversation = (await http.post("/conversations")).json()["id"]
        store = (await http.post("/vector_stores", json={})).json()["id"]
        path = path.format(conversation=conversation, store=store)
        answers = [await http.post(path, content=body) for body in NO_BODIES]
    assert [answer.status_code for answer in answers] == [400] * len(NO_BODIES)
    assert {answer.json()["error"]["type"] for answer in answers} == {"invalid_request_error"}


HUGE = [10**40, -(10**40), 1e308, "x" * 100_000, "9" * 5_000, [[]] * 1_000, {"x": {}}, True, None, -1, 0.5, "\x00"]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/vector_stores", {"name": "", "file_ids": [], "metadata": {}, "expires_after": {}, "chunking_strategy": {}}),
    ("/vector_stores/{store}/files", {"file_id": "{file}", "attributes": {"x": 1}, "chunking_strategy": {}}),
    ("/vector_stores/{store}/search", {"query": "sea", "max_num_results": 1, "ranking_options": {}, "filters": {}}),
    ("/conversations", {"items": [], "metadata": {}}),
]


@pytest.mark.parametrize(("path", "fields"), REQUESTS, ids=lambda value: value if isinstance(value, str) else "")
async def test_odd_values_never_break_it(simulator: Simulator, path: str, fields: dict[str, Any]) -> None:
    async with httpx2.AsyncClient(verify=TLS, headers=KEY, base_url=simulator.url) as http:
        uploaded = await http.post("/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"The sea.")})
        file = uploaded.json()["id"]
        store = (await http.post("/vector_stores", json={"file_ids": [file]})).json()["id"]
        usual = {"file_id": file, "query": "sea"}
        needed = {name: usual[name] for name in fields if name in usual}
        for name, odd in itertools.product(fields, HUGE):
            for value in (odd, {"x": odd}, {"type": "gt", "key": "x", "value": odd}):
                answer = await http.post(path.format(store=store), json={**needed, name: value})
                assert answer.status_code in {200, 400, 404}, (name, repr(value)[:80], answer.text)
        assert (await http.get(f"/vector_stores/{store}")).status_code == 200
        assert (await http.get(f"/vector_stores/{store}/files")).status_code == 200


PARAMS = [
    (ResponseCreateParamsNonStreaming, CreateResponse),
    (InputTokenCountParams, CountInputTokens),
    (CompletionCreateParamsNonStreaming, CreateChatCompletion),
    (EmbeddingCreateParams, CreateEmbedding),
]


@pytest.mark.parametrize(("params", "request_type"), PARAMS)
def test_every_parameter_the_client_knows_is_known(params: Any, request_type: Any) -> None:
    assert params.__required_keys__ | params.__optional_keys__ <= set(request_type.__struct_fields__)


MESSAGES = [*get_args(ChatCompletionMessageParam), ChatCompletionMessage]
ITEMS = [
    (EasyInputMessageParam, input_items.MessageInput),
    (ResponseOutputMessageParam, input_items.MessageInput),
    (ResponseFunctionToolCallParam, input_items.FunctionCallInput),
    (FunctionCallOutput, input_items.FunctionCallOutput),
    (ResponseReasoningItemParam, input_items.ReasoningInput),
]


@pytest.mark.parametrize(("shape", "ours"), [*ITEMS, *((each, chat.Message) for each in MESSAGES)])
def test_every_key_of_messages_and_items_the_client_knows_is_known(shape: Any, ours: Any) -> None:
    is_model = hasattr(shape, "model_fields")
    keys = set(shape.model_fields) if is_model else shape.__required_keys__ | shape.__optional_keys__
    assert keys <= set(ours.__struct_encode_fields__)


def _function(api: str, **settings: Any) -> dict[str, Any]:
    return {"type": "function", **settings} if api == "/responses" else {"type": "function", "function": settings}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("name", [5, "", "<lambda>", "a b", "caf\u00e9", "x" * 65, "look\n"])
async def test_names_the_api_does_not_take_for_tools_are_refused(simulator: Simulator, path: str, name: Any) -> None:
    body = {"model": "gpt-4.1", **ASKED[path], "tools": [_function(path, name=name)]}
    async with httpx2.AsyncClient(verify=TLS, headers=KEY) as http:
        response = await http.post(f"{simulator.url}{path}", json=body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == ("tools[0].name" if path == "/responses" else "tools[0].function.name")
    assert error["code"] == ("invalid_type" if name == 5 else "invalid_value")


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    "schema",
    [
        {"properties": [1]},
        {"properties": None},
        {"required": None},
        {"required": [1]},
        {"type": 5},
        {"properties": {"x": {"type": "string", "minLength": "3"}}},
        {"properties": {"x": {"type": "array", "minItems": -1}}},
        {"properties": {"x": {"type": "number", "multipleOf": 0}}},
        {"properties": {"x": {"anyOf": []}}},
        {"properties": {"x": {"anyOf": [5]}}},
        {"properties": {"x": {"$ref": "#/$defs/Nobody"}}},
        {"properties": {"x": {"$ref": "#/required/0"}}, "required": ["x"]},
        {"$ref": 5},
        {"$ref": "#/enum/0", "enum": [[1]]},
    ],
)
async def test_what_is_no_schema_is_refused(simulator: Simulator, path: str, schema: dict[str, Any]) -> None:
    body = {"model": "gpt-4.1", **ASKED[path], "tools": [_function(path, name="look", parameters=schema)]}
    async with httpx2.AsyncClient(verify=TLS, headers=KEY) as http:
        response = await http.post(f"{simulator.url}{path}", json=body)
        shaped = {"json_schema": {"name": "x", "schema": schema}, "schema": schema, "name": "x", "type": "json_schema"}
        settings = {"text": {"format": shaped}} if path == "/responses" else {"response_format": shaped}
        output = await http.post(f"{simulator.url}{path}", json={"model": "gpt-4.1", **ASKED[path], **settings})
    assert (response.status_code, output.status_code) == (400, 400)
    assert response.json()["error"]["code"] == "invalid_function_parameters"
    assert "Invalid schema for function 'look'" in response.json()["error"]["message"]
    assert "Invalid schema for response_format" in output.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "choice"),
    [
        ("/responses", {"type": "allowed_tools", "mode": "auto", "tools": ["look"]}),
        ("/responses", {"type": "allowed_tools", "mode": {}, "tools": []}),
        ("/responses", {"type": "function", "name": 5}),
        ("/chat/completions", {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ["look"]}}),
        ("/chat/completions", {"type": "allowed_tools", "allowed_tools": {"mode": {}, "tools": []}}),
        ("/chat/completions", {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": 1}]}}),
    ],
)
async def test_a_malformed_tool_choice_is_refused(simulator: Simulator, path: str, choice: Any) -> None:
    body = {"model": "gpt-4.1", **ASKED[path], "tools": [_function(path, name="look")], "tool_choice": choice}
    async with httpx2.AsyncClient(verify=TLS, headers=KEY) as http:
        response = await http.post(f"{simulator.url}{path}", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tool_choice")
