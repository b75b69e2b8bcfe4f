"""What the simulator refuses, as the real service does: parameters, keys, names, schemas, choices."""

import itertools
from typing import Any, get_args, get_type_hints

import httpx2
import pytest
from openai.types import EmbeddingCreateParams, chat, responses, shared_params
from openai.types.chat import completion_create_params
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses import InputTokenCountParams, response_create_params, response_input_item_param
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.response_input_param import FunctionCallOutput

from runmeter.simulator import Simulator
from runmeter.simulator.endpoints.embeddings import CreateEmbedding
from runmeter.simulator.model.prompt import Effort
from runmeter.simulator.objects import content, input_items
from runmeter.simulator.requests import chat_params, response_params, text_format, tools

KEY = {"authorization": "Bearer sk-simulated"}
HELLO = {"role": "user", "content": "Hi."}
ASKED = {"/responses": {"input": [HELLO]}, "/chat/completions": {"messages": [HELLO]}}
LOOK = {"type": "function", "function": {"name": "look"}}
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
        ("/responses", {"temperature": 5}, "temperature", "decimal_above_max_value"),
        ("/responses", {"top_p": -0.5}, "top_p", "decimal_below_min_value"),
        ("/chat/completions", {"temperature": -1}, "temperature", "decimal_below_min_value"),
        ("/chat/completions", {"messages": []}, "messages", "empty_array"),
        ("/chat/completions", {"messages": [{**HELLO, "x": 1}]}, "messages[0].x", "unknown_parameter"),
        ("/chat/completions", {"messages": [{"role": "wizard"}]}, "messages[0].role", "invalid_value"),
        ("/chat/completions", {"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        ("/chat/completions", {"messages": [HELLO, {"role": "assistant"}]}, "messages.[1].content", None),
        (
            "/chat/completions",
            {"messages": [{"role": "assistant", "content": "Hi.", "tool_calls": []}]},
            "messages[0].tool_calls",
            "empty_array",
        ),
        ("/chat/completions", {"tools": []}, "tools", "empty_array"),
        ("/chat/completions", {"tools": [LOOK] * 129}, "tools", "array_above_max_length"),
        ("/chat/completions", {"tools": [{"type": "newer"}]}, "tools[0].type", "invalid_value"),
        ("/chat/completions", {"tools": [{**LOOK, "x": 1}]}, "tools[0].x", "unknown_parameter"),
        ("/chat/completions", {"tool_choice": "auto"}, "tool_choice", None),
        ("/chat/completions", {"parallel_tool_calls": False}, "parallel_tool_calls", None),
        ("/chat/completions", {"stream_options": {"include_usage": True}}, "stream_options", None),
        ("/chat/completions", {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        ("/chat/completions", {"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ("/chat/completions", {"response_format": {"type": "json_object"}}, "messages", None),
        (
            "/chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
            "missing_required_parameter",
        ),
        ("/chat/completions", {"verbosity": "loud"}, "verbosity", "invalid_value"),
        ("/chat/completions", {"service_tier": "ultrafast"}, "service_tier", "invalid_value"),
        ("/chat/completions", {"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        ("/chat/completions", {"stop": list("abcde")}, "stop", "array_above_max_length"),
        ("/responses", {"stream_options": {"include_obfuscation": False}}, "stream_options", None),
        ("/responses", {"tools": [{"type": "newer"}]}, "tools[0].type", "invalid_value"),
        ("/responses", {"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        ("/responses", {"tools": [{"type": "function", "name": "f", "x": 1}]}, "tools[0].x", "unknown_parameter"),
        ("/responses", {"tool_choice": {"type": "newer"}}, "tool_choice", "invalid_value"),
        ("/responses", {"tool_choice": "newer"}, "tool_choice", "invalid_value"),
        ("/responses", {"reasoning": {"effort": "low", "x": 1}}, "reasoning.x", "unknown_parameter"),
        ("/responses", {"reasoning": {"summary": "long"}}, "reasoning.summary", "invalid_value"),
        ("/responses", {"text": {"verbosity": "loud"}}, "text.verbosity", "invalid_value"),
        ("/responses", {"text": {"x": 1}}, "text.x", "unknown_parameter"),
        ("/responses", {"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ("/responses", {"text": {"format": {"type": "json_object"}}}, "input", None),
        (
            "/responses",
            {"text": {"format": {"type": "json_object"}}, "instructions": "Write JSON."},  # which does not count
            "input",
            None,
        ),
        (
            "/responses",
            {"text": {"format": {"type": "json_schema", "schema": {}}}},
            "text.format.name",
            "missing_required_parameter",
        ),
        ("/responses", {"include": ["everything"]}, "include[0]", "invalid_value"),
        ("/responses", {"truncation": "some"}, "truncation", "invalid_value"),
        ("/responses", {"prompt_cache_options": {"ttl": "1h"}}, "prompt_cache_options.ttl", "invalid_value"),
        ("/chat/completions", {"max_completion_tokens": -3}, "max_completion_tokens", "integer_below_min_value"),
        ("/chat/completions", {"model": "gpt-4.1", "max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ],
)
async def test_what_the_api_does_not_take_is_refused_in_its_shape(
    simulator: Simulator, path: str, settings: dict[str, Any], param: str | None, code: str | None
) -> None:
    body = {"model": "gpt-6-luna", **ASKED.get(path, {}), **settings}
    async with httpx2.AsyncClient(headers=KEY) as http:
        response = await http.post(f"{simulator.url}{path}", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code)


async def test_a_body_nested_too_deeply_is_refused(simulator: Simulator) -> None:
    body = b'{"model": "gpt-6-luna", "text": {"x": %s}}' % (b"[" * 20_000)
    async with httpx2.AsyncClient(headers=KEY) as http:
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
    async with httpx2.AsyncClient(headers=KEY, base_url=simulator.url) as http:
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
    async with httpx2.AsyncClient(headers=KEY, base_url=simulator.url) as http:
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


PARTS = [
    [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,!!!"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
    [{"role": "user", "content": []}],
    [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
    [{"type": "item_reference", "id": 5}],
    [{"type": "reasoning", "summary": []}],
    [{"type": []}],
    {"type": None},
]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they differ in nothing but the client
@pytest.mark.parametrize(
    ("path", "request_type"),
    [("/responses", response_params.CreateResponse), ("/chat/completions", chat_params.CreateChatCompletion)],
)
@pytest.mark.parametrize("values", [PARTS, pytest.param(HUGE, marks=pytest.mark.campaign)], ids=["parts", "huge"])
async def test_odd_parameters_never_break_it(
    simulator: Simulator, path: str, request_type: Any, values: list[Any]
) -> None:
    async with httpx2.AsyncClient(headers=KEY, base_url=simulator.url) as http:
        for name, odd in itertools.product(request_type.__struct_fields__, values):
            answer = await http.post(path, json={"model": "gpt-4.1", **ASKED[path], name: odd})
            assert answer.status_code in {200, 400, 404}, (name, repr(odd)[:80], answer.text)


PARAMS: list[tuple[Any, Any]] = [
    (ResponseCreateParamsNonStreaming, response_params.CreateResponse),
    (InputTokenCountParams, response_params.CountInputTokens),
    (shared_params.Reasoning, response_params.Reasoning),
    (response_create_params.PromptCacheOptions, response_params.CacheOptions),
    (response_create_params.StreamOptions, response_params.EventOptions),
    (responses.ResponseConversationParamParam, response_params.ConversationReference),
    (responses.ResponseTextConfigParam, text_format.TextParams),
    (responses.ResponseFormatTextJSONSchemaConfigParam, text_format.SchemaFormat),
    (shared_params.ResponseFormatText, text_format.PlainText),
    (shared_params.ResponseFormatJSONObject, text_format.JSONObject),
    (shared_params.ResponseFormatJSONSchema, text_format.ChatSchemaFormat),
    (shared_params.response_format_json_schema.JSONSchema, text_format.JSONSchema),
    (responses.FunctionToolParam, tools.FunctionDefinition),
    (chat.ChatCompletionFunctionToolParam, tools.ChatFunctionTool),
    (shared_params.FunctionDefinition, tools.ChatFunction),
    (responses.EasyInputMessageParam, input_items.MessageInput),
    (response_input_item_param.Message, input_items.MessageInput),
    (responses.EasyInputMessageParam, input_items.AnswerInput),
    (responses.ResponseOutputMessageParam, input_items.AnswerInput),
    (responses.ResponseFunctionToolCallParam, input_items.FunctionCallInput),
    (FunctionCallOutput, input_items.FunctionCallOutput),
    (responses.ResponseReasoningItemParam, input_items.ReasoningInput),
    (responses.ResponseInputTextParam, content.InputText),
    (responses.ResponseInputImageParam, content.InputImage),
    (responses.ResponseInputFileParam, content.InputFile),
    (responses.ResponseInputAudioParam, content.InputAudio),
    (responses.ResponseOutputTextParam, content.SaidText),
    (responses.ResponseOutputRefusalParam, content.SaidRefusal),
    (chat.ChatCompletionContentPartTextParam, content.ChatText),
    (chat.ChatCompletionContentPartImageParam, content.ChatImage),
    (chat.chat_completion_content_part_image_param.ImageURL, content.ImageURL),
    (chat.chat_completion_content_part_param.File, content.ChatFile),
    (chat.ChatCompletionContentPartInputAudioParam, content.InputAudio),
    (CompletionCreateParamsNonStreaming, chat_params.CreateChatCompletion),
    (completion_create_params.PromptCacheOptions, chat_params.ChatCacheOptions),
    (chat.ChatCompletionStreamOptionsParam, chat_params.StreamOptions),
    (chat.ChatCompletionMessageFunctionToolCallParam, chat_params.MessageCall),
    (chat.chat_completion_message_function_tool_call_param.Function, chat_params.Function),
    (chat.ChatCompletionDeveloperMessageParam, chat_params.DeveloperMessage),
    (chat.ChatCompletionSystemMessageParam, chat_params.SystemMessage),
    (chat.ChatCompletionUserMessageParam, chat_params.UserMessage),
    (chat.ChatCompletionAssistantMessageParam, chat_params.AssistantMessage),
    (chat.ChatCompletionMessage, chat_params.AssistantMessage),
    (chat.ChatCompletionToolMessageParam, chat_params.ToolMessage),
    (chat.ChatCompletionFunctionMessageParam, chat_params.FunctionMessage),
    (EmbeddingCreateParams, CreateEmbedding),
]


@pytest.mark.parametrize(("shape", "ours"), PARAMS, ids=lambda each: each.__name__)
def test_every_key_the_client_knows_is_known(shape: Any, ours: Any) -> None:
    known = {*ours.__struct_encode_fields__, ours.__struct_config__.tag_field}
    assert _keys(shape) <= known


def _keys(shape: Any) -> set[str]:
    is_model = hasattr(shape, "model_fields")
    return set(shape.model_fields) if is_model else set(shape.__required_keys__ | shape.__optional_keys__)


def _names(annotation: Any) -> set[str]:
    """The texts that a type of the client's allows, however its literals are nested."""
    return {name for each in get_args(annotation) for name in ({each} if isinstance(each, str) else _names(each))}


def _kinds(union: Any) -> set[str]:
    return {name for each in get_args(union) for name in _names(get_type_hints(each).get("type"))}


def test_every_kind_of_item_and_of_tool_the_client_knows_is_known() -> None:
    assert _kinds(responses.ResponseInputItemParam) == {*input_items.SHAPES, *input_items.OTHERS, "item_reference"}
    dated = {"web_search_2025_08_26", "web_search_preview_2025_03_11"}
    assert _kinds(responses.ToolParam) == {"function", *tools.HOSTED, *tools.OTHERS, *dated}


@pytest.mark.parametrize(
    "tool", [tool for tool in get_args(responses.ToolParam) if _kinds(tool | None) & {*tools.HOSTED}]
)
def test_every_key_of_a_tool_that_openai_runs_is_known(tool: Any) -> None:
    (kind,) = _names(get_type_hints(tool)["type"]) & {*tools.HOSTED}
    assert _keys(tool) == {"type", *(key.rstrip("!") for key in tools.HOSTED[kind].split())}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (responses.ResponseIncludable, response_params.Includable),
        (shared_params.Reasoning.__annotations__["effort"], Effort),
        (shared_params.Reasoning.__annotations__["summary"], response_params.Reasoning.__annotations__["summary"]),
    ],
)
def test_every_value_the_client_knows_is_known(theirs: Any, ours: Any) -> None:
    assert _names(theirs) <= _names(ours)


def _format(api: str, schema: Any, **settings: Any) -> dict[str, Any]:
    named = {"name": "x", "schema": schema, **settings}
    if api == "/responses":
        return {"text": {"format": {"type": "json_schema", **named}}}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _function(api: str, **settings: Any) -> dict[str, Any]:
    return {"type": "function", **settings} if api == "/responses" else {"type": "function", "function": settings}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("name", [5, "", "<lambda>", "a b", "caf\u00e9", "x" * 65, "look\n"])
async def test_names_the_api_does_not_take_for_tools_are_refused(simulator: Simulator, path: str, name: Any) -> None:
    body = {"model": "gpt-4.1", **ASKED[path], "tools": [_function(path, name=name)]}
    async with httpx2.AsyncClient(headers=KEY) as http:
        response = await http.post(f"{simulator.url}{path}", json=body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == ("tools[0].name" if path == "/responses" else "tools[0].function.name")
    assert error["code"] == ("invalid_type" if name == 5 else "invalid_value")


ODD: list[dict[str, Any]] = [
    {"type": "array"},
    {"type": "object", "properties": {"y": {"type": "array"}}},
    {"type": "string", "minLength": "3"},
    {"type": "array", "items": {}, "minItems": -1},
    {"type": "number", "multipleOf": 0},
    {"anyOf": []},
    {"anyOf": [5]},
    {"$ref": "#/$defs/Nobody"},
]


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": [1]},
        {"type": "object", "properties": None},
        {"type": "object", "properties": {}, "required": None},
        {"type": "object", "properties": {}, "required": [1]},
        {"type": 5},
        {"type": "array", "items": {}},
        {"properties": {}},
        {"type": "object"},
        {},
        *({"type": "object", "properties": {"x": each}} for each in ODD),
        {"type": "object", "properties": {"x": {"$ref": "#/required/0"}}, "required": ["x"]},
        {"type": "object", "properties": {}, "$ref": 5},
        {"type": "object", "properties": {}, "$ref": "#/enum/0", "enum": [[1]]},
    ],
    ids=str,
)
async def test_what_is_no_schema_is_refused(simulator: Simulator, path: str, schema: dict[str, Any]) -> None:
    body = {"model": "gpt-4.1", **ASKED[path], "tools": [_function(path, name="look", parameters=schema)]}
    async with httpx2.AsyncClient(headers=KEY) as http:
        response = await http.post(f"{simulator.url}{path}", json=body)
        settings = _format(path, schema)
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
    async with httpx2.AsyncClient(headers=KEY) as http:
        response = await http.post(f"{simulator.url}{path}", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("tool_choice")
