"""Tools that OpenAI runs: given by name or as definitions, and what is sent of them."""

import json
from typing import Any, get_args, get_type_hints

import httpx2
import pytest
from openai.types.responses.tool_param import ToolParam
from pattern_support import KEY, Run

from runmeter.engine import ConfigurationError
from runmeter.patterns import OpenAIPatternConfig, PatternRegistry
from runmeter.patterns.openai_client.clients import Clients
from runmeter.patterns.tools.hosted import hosted_tools
from runmeter.simulator import Simulator

CODE = {"type": "code_interpreter", "container": {"type": "auto"}}
STORE = {"type": "file_search", "vector_store_ids": ["vs_1"]}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("web_search", {"type": "web_search"}),
        ("web_search_preview", {"type": "web_search_preview"}),
        ("image_generation", {"type": "image_generation"}),
        ("code_interpreter", CODE),
        ({"type": "code_interpreter"}, CODE),
        ({"type": "code_interpreter", "container": "cntr_1"}, {"type": "code_interpreter", "container": "cntr_1"}),
        ({"type": "web_search", "search_context_size": "low"}, {"type": "web_search", "search_context_size": "low"}),
        (STORE, STORE),
        ({"type": "brand_new", "depth": 3}, {"type": "brand_new", "depth": 3}),
    ],
)
def test_a_tool_is_given_by_name_or_as_a_definition(given: Any, sent: dict[str, Any]) -> None:
    config = OpenAIPatternConfig(assistant_tools=(given,))
    assert config.assistant_tools == (sent,)
    assert OpenAIPatternConfig(assistant_tools=config.assistant_tools) == config
    assert OpenAIPatternConfig.from_data({"assistant_tools": [given]}) == config


NESTED: list[Any] = []
for _ in range(20_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("file_search", r"'file_search' needs vector_store_ids: \{\"type\": \"file_search\", \"vector_store_ids\": "),
        ({"type": "file_search"}, "'file_search' needs vector_store_ids"),
        ({"type": "file_search", "vector_store_ids": []}, "'file_search' needs vector_store_ids"),
        ("mcp", "'mcp' needs server_url or connector_id or tunnel_id"),
        ("web-search", "by the name 'web-search': did you mean 'web_search'?"),
        ("retrieval", "by the name 'retrieval': did you mean 'file_search'?"),
        ("zzz", "there are code_interpreter, image_generation, web_search, .*; give another as a dict"),
        ("", "by the name ''"),
        ("function", "OpenAI does not run 'function', it asks for it: give a function of yours as one of `tools`"),
        ({"type": "function", "name": "find"}, "OpenAI does not run 'function'"),
        ({"type": "computer"}, "OpenAI does not run 'computer'"),
        ({"name": "web_search"}, 'a definition has no "type"'),
        ({"type": 7}, 'a definition has no "type"'),
        ({"type": "web_search", "filters": {1, 2}}, "'web_search' is not JSON: .*set"),
        ({"type": "web_search", "filters": NESTED}, "'web_search' is not JSON: it nests deeper than 100 levels"),
    ],
)
def test_a_tool_that_says_too_little_is_refused_with_a_way_out(given: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^assistant_tools: .*{complaint}"):
        OpenAIPatternConfig(assistant_tools=(given,))


def test_every_tool_of_the_clients_is_known_by_name_or_says_why_not() -> None:
    """So that one that comes with a newer client is looked at."""
    names = [name for tool in get_args(ToolParam) for name in get_args(get_type_hints(tool)["type"])]
    unknown = set()
    for name in names:
        try:
            hosted_tools([name])
        except ConfigurationError as error:
            unknown |= {name} if "known by the name" in str(error) else set()
    assert unknown == {"programmatic_tool_calling", "shell", "tool_search"}, "these need a dict"


@pytest.mark.parametrize(
    ("pattern_type", "anyio_backend"),
    [("openai_function_calling", "asyncio"), ("openai_function_calling", "trio"), ("augmented_llm", "asyncio")],
)
async def test_both_frameworks_send_the_definitions(simulator: Simulator, pattern_type: str) -> None:
    sent: list[Any] = []

    async def look(request: httpx2.Request) -> None:
        sent.append(json.loads(request.content))

    tools = ("code_interpreter", "web_search", STORE)
    config = OpenAIPatternConfig(api_key=KEY, base_url=simulator.url, assistant_tools=tools)
    pattern: Any = PatternRegistry().create_pattern(pattern_type, config)
    clients: Clients = getattr(pattern, "clients", None) or pattern._clients
    clients.get()._client.event_hooks["request"].append(look)
    with Run()():
        assert (await pattern.execute("How much is six times seven?")).content
    await pattern.aclose()
    assert [request["tools"] for request in sent] == [[CODE, {"type": "web_search"}, STORE]]
