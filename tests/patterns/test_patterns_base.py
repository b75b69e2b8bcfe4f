"""Configurations are checked when they are made; patterns keep their contract."""

import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from pattern_support import KEY
from process_support import output_of, python

from runmeter.engine import ConfigurationError, Engine
from runmeter.patterns import (
    BasePattern,
    OpenAIBasePattern,
    OpenAIPatternConfig,
    PatternConfig,
    PatternResult,
    PatternType,
)


class Echo(BasePattern):
    """Says what it is told."""

    pattern_type = PatternType.ROUTING
    framework = "langgraph"
    operation = "invoke_workflow"

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> PatternResult:
        return PatternResult(content=f"{messages} {context}")


class Socket:
    """What deltas can be sent to."""

    async def send_text(self, text: str) -> None:
        """Send."""


class Speaker(OpenAIBasePattern):
    pattern_type = PatternType.OPENAI_STREAMING

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> PatternResult:
        return PatternResult(content=str(self.config.openai_max_tokens))


def test_there_are_twelve_patterns_on_two_frameworks() -> None:
    assert len(PatternType) == 12
    assert PatternType("openai_rag") is PatternType.OPENAI_RAG
    assert sum(each.framework == "openai" for each in PatternType) == 6
    assert PatternType.AUGMENTED_LLM.framework == "langgraph"


def test_the_defaults() -> None:
    config = OpenAIPatternConfig()
    assert config.openai_model == "gpt-6-luna"
    assert config.openai_temperature == 0.1
    assert config.function_calling_mode == "auto"
    assert config.parallel_tool_calls
    assert config.stream_responses
    assert config.max_function_calls == 10
    assert config.assistant_tools == ()


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("openai_temperature", 2.1, "<= 2"),
        ("openai_temperature", "warm", "got `str`"),
        ("openai_max_tokens", 15, ">= 16"),
        ("openai_max_tokens", True, "got `bool`"),
        ("max_iterations", 0, ">= 1"),
        ("max_function_calls", -1, ">= 0"),
        ("tool_timeout", 0, "> 0"),
        ("request_timeout", None, "got `null`"),
        ("function_calling_mode", "always", "always"),
        ("reasoning_effort", "huge", "huge"),
        ("assistant_tools", "web_search", "got `str`"),
        ("assistant_tools", [7], "got `int`"),
        ("parallel_tool_calls", "yes", "got `str`"),
        ("openai_model", None, "got `null`"),
        ("openai_model", "", "length >= 1"),
        ("name", "", "length >= 1"),
        ("request_timeout", float("nan"), "> 0"),
        ("assistant_id", "asst_abc", "Assistants API, which ended on 2026-08-26"),
        ("thread_id", "thread_abc", "threads are conversations now"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        OpenAIPatternConfig(**{field: value})
    assert field in str(raised.value)
    with pytest.raises(ValueError, match=field):
        replace(OpenAIPatternConfig(), **{field: value})


def test_a_config_is_a_value() -> None:
    config = OpenAIPatternConfig(assistant_tools=["web_search"], tool_timeout=3)  # type: ignore[arg-type] # users write lists
    assert config.assistant_tools == ({"type": "web_search"},)
    assert config == OpenAIPatternConfig(assistant_tools=({"type": "web_search"},), tool_timeout=3.0)
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes
    with pytest.raises(FrozenInstanceError):
        config.openai_model = "other"  # type: ignore[misc] # that is the point
    with pytest.raises(TypeError, match="no_such_field"):
        OpenAIPatternConfig(no_such_field=1)  # type: ignore[call-arg] # that is the point


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(OpenAIPatternConfig(api_key=KEY))
    with pytest.raises(ConfigurationError) as raised:
        OpenAIPatternConfig(api_key=[KEY])  # type: ignore[arg-type] # that is the point
    assert "expected a string or an async function, got list" in str(raised.value)
    assert KEY not in str(raised.value)
    pattern = Speaker(OpenAIPatternConfig(api_key=KEY))
    assert KEY not in repr(pattern)
    assert KEY not in repr(vars(pattern))


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f"{KEY} ", f"{KEY}\N{HORIZONTAL ELLIPSIS}", f"{KEY}\0"])
def test_a_key_that_cannot_be_sent_is_refused_but_not_said(key: str) -> None:
    with pytest.raises(ConfigurationError, match=r"api_key: a key has visible ASCII .*strip\(\)") as raised:
        OpenAIPatternConfig(api_key=key)
    assert KEY not in str(raised.value)


def test_a_forgotten_list_is_named() -> None:
    for tools in (print_, {"name": "x"}, "x", 3):
        with pytest.raises(ConfigurationError, match="tools must be a list"):
            Echo(PatternConfig(), tools)  # type: ignore[arg-type] # that is the point


def test_a_pattern_wants_its_kind_of_config() -> None:
    with pytest.raises(
        ValueError, match="'openai_streaming' needs a config of type OpenAIPatternConfig, not PatternConfig"
    ):
        Speaker(PatternConfig())
    with pytest.raises(ValueError, match="'routing' needs a config of type PatternConfig, not dict"):
        Echo({})  # type: ignore[arg-type] # that is the point
    with pytest.raises(ValueError, match="not the class PatternConfig"):
        Echo(PatternConfig)  # type: ignore[arg-type] # that is the point
    assert Echo(OpenAIPatternConfig()).name == "routing"


async def test_a_pattern_runs_with_or_without_an_engine() -> None:
    socket = Socket()
    async with Echo(PatternConfig(name="echo"), [print_], socket) as pattern:
        assert pattern.ws_streaming is socket
        assert [tool.name for tool in pattern.toolbox] == ["print_"]
        assert (await pattern.execute("x")).content == "x None"
        async with Engine() as engine:
            result = await engine.run(pattern, "x", {"y": 1})
            [row] = engine.usage().by_pattern().items()
        assert result.content == "x {'y': 1}"
        assert (row[0], row[1].executions) == ("echo", 1)


def print_(text: str) -> None:
    """Print."""


async def test_a_pattern_may_be_closed_before_it_was_used() -> None:
    async with Speaker(OpenAIPatternConfig(openai_max_tokens=16)) as pattern:
        assert (await pattern.execute("x")).content == "16"
    await pattern.aclose()


def test_a_class_of_ones_own_on_the_openai_api_is_light_until_it_runs() -> None:
    code = """
import sys
from runmeter.patterns import OpenAIBasePattern, OpenAIPatternConfig, PatternResult

class Own(OpenAIBasePattern):
    pattern_type = "own"

    async def execute(self, messages, context=None):
        return PatternResult(content=str(messages))

pattern = Own(OpenAIPatternConfig(api_key="sk-made-up"))
assert pattern.openai_config.api_key == "sk-made-up"
print("openai" in sys.modules)
"""
    assert output_of(python(code)).strip() == "False"
