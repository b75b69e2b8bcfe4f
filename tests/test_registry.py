"""The registry: what can be created, what is in use, and what all of it used."""

import gc
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from runmeter.engine import (
    ConfigurationError,
    Engine,
    ModelRequest,
    PriceBook,
    Status,
    TokenUsage,
    Usage,
    current_execution,
)
from runmeter.engine.testing import ManualClock
from runmeter.patterns import (
    AugmentedLLMPattern,
    BasePattern,
    MissingFramework,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    PatternConfig,
    PatternRegistry,
    PatternResult,
    PatternType,
    UnknownPattern,
    get_pattern_registry,
)
from runmeter.patterns.statistics import report_events


class Echo(BasePattern):
    """Says what it is told, and claims to have used a few tokens for it."""

    pattern_type = "echo"
    framework = "python"
    closed = 0

    def __init__(self, *arguments: Any, loud: bool = False) -> None:
        super().__init__(*arguments)
        self.loud = loud

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> PatternResult:
        execution = current_execution()
        with execution.model_call(ModelRequest(provider="openai", model="gpt-6-luna")) as call:
            call.record(Usage(1000, 500, reasoning_tokens=100))
        with execution.function_call("find"):
            pass
        with execution.assistant_run("helper"):
            pass
        if messages == "fail":
            raise KeyError(messages)
        return PatternResult(content=messages)

    async def aclose(self) -> None:
        type(self).closed += 1
        if self.name == "stuck":
            raise OSError("stuck")


@dataclass
class Data(Echo):
    """Unhashable, and equal to others."""

    config: PatternConfig
    tools: Any = None
    ws_streaming: Any = None

    def __post_init__(self) -> None:
        super().__init__(self.config, self.tools, self.ws_streaming)


@pytest.fixture
def registry() -> PatternRegistry:
    registry = PatternRegistry(clock=ManualClock())
    registry.register("echo", Echo)
    return registry


def test_the_defaults_are_all_twelve(registry: PatternRegistry) -> None:
    assert PatternRegistry().available == tuple(PatternType)
    config = OpenAIPatternConfig(api_key="sk")
    assert type(registry.create_pattern("openai_function_calling", config)) is OpenAIFunctionCallingPattern
    assert type(registry.create_pattern(PatternType.AUGMENTED_LLM)) is AugmentedLLMPattern


def test_asking_for_another_says_what_there_is(registry: PatternRegistry) -> None:
    with pytest.raises(UnknownPattern) as raised:
        registry.create_pattern("made_up")
    available = ", ".join([*PatternType, "echo"])
    assert str(raised.value) == f"pattern 'made_up' is not registered; available are: {available}"
    assert isinstance(raised.value, ValueError)


def test_every_pattern_has_a_framework(registry: PatternRegistry) -> None:
    for pattern_type in PatternType:
        is_openai = str(pattern_type).startswith("openai_")
        assert registry.is_openai_pattern(pattern_type) is is_openai
        assert registry.is_langgraph_pattern(str(pattern_type)) is not is_openai
    assert registry.get_pattern_framework("echo") == "python"
    with pytest.raises(UnknownPattern):
        registry.get_pattern_framework("made_up")


def test_the_kind_of_config_is_checked_before_anything_is_loaded(registry: PatternRegistry) -> None:
    registry.register("openai_rag", "no.such.module:Pattern", replace=True)
    with pytest.raises(ValueError, match="'openai_rag' needs a config of type OpenAIPatternConfig, not PatternConfig"):
        registry.create_pattern(PatternType.OPENAI_RAG, PatternConfig())
    with pytest.raises(ValueError, match="'augmented_llm' needs a config of type PatternConfig, not dict"):
        registry.create_pattern("augmented_llm", {"max_iterations": 3})  # type: ignore[arg-type] # that is the point
    assert registry.create_pattern("augmented_llm", OpenAIPatternConfig(api_key="sk")).framework == "langgraph"


def test_a_missing_framework_is_an_error_only_when_it_is_needed(
    registry: PatternRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith(("langgraph", "runmeter.patterns.langgraph"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "langgraph.graph", None)
    monkeypatch.setitem(sys.modules, "langgraph", None)
    assert "augmented_llm" in PatternRegistry().available
    with pytest.raises(MissingFramework) as raised:
        registry.create_pattern("augmented_llm")
    assert str(raised.value) == "pattern 'augmented_llm' needs langgraph, but 'langgraph' is not installed"
    assert isinstance(raised.value, ImportError)
    registry.create_pattern("echo")


def test_a_default_models_library_may_be_missing_too(
    registry: PatternRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(MissingFramework, match="'langchain_openai' is not installed"):
        registry.create_pattern("augmented_llm")
    model = FakeListChatModel(responses=["ok"])
    assert registry.create_pattern("augmented_llm", model=model).framework == "langgraph"


def test_a_mistake_of_our_own_is_no_missing_framework(registry: PatternRegistry) -> None:
    registry.register("broken", "runmeter.no_such_module:Pattern", framework="python")
    with pytest.raises(ModuleNotFoundError) as raised:
        registry.create_pattern("broken")
    assert type(raised.value) is ModuleNotFoundError


def test_registration_is_checked(registry: PatternRegistry) -> None:
    with pytest.raises(ConfigurationError, match="'echo' is registered already"):
        registry.register("echo", Echo)
    registry.register("echo", Echo, framework="other", replace=True)
    assert registry.get_pattern_framework("echo") == "other"
    with pytest.raises(ConfigurationError, match="does not derive from BasePattern"):
        registry.register("dict", dict)  # type: ignore[arg-type] # that is the point
    with pytest.raises(ConfigurationError, match="say which framework"):
        registry.register("mine", "my.module:Pattern")
    with pytest.raises(ConfigurationError, match="is no 'module:Class'"):
        registry.register("mine", "my.module.Pattern", framework="python")


def test_instances_are_known_and_not_kept_alive(registry: PatternRegistry) -> None:
    pattern = registry.create_pattern("echo", PatternConfig(name="one"))
    [instance] = registry.instances()
    assert instance.pattern is pattern
    assert (instance.pattern_type, instance.framework) == ("echo", "python")
    assert instance.created_at == datetime.fromtimestamp(1_800_000_000, UTC)
    for _ in range(1000):
        registry.create_pattern("echo", cached=True)
    del pattern, instance
    gc.collect()
    assert registry.instances() == ()


def test_a_cached_pattern_is_handed_out_again_for_the_same_things(registry: PatternRegistry) -> None:
    def find(number: int) -> None: ...
    def other(number: int) -> None: ...

    def create(config: PatternConfig | None = None, tools: tuple[Any, ...] = (find,), **options: Any) -> BasePattern:
        return registry.create_pattern("echo", config or PatternConfig(), tools, cached=True, **options)

    first = create()
    assert create() is first
    different = [
        create(PatternConfig(max_iterations=3)),
        create(OpenAIPatternConfig()),
        create(tools=(other,)),
        create(tools=()),
        create(loud=True),
        registry.create_pattern("echo", PatternConfig(), (find,)),
    ]
    assert len({id(pattern) for pattern in (first, *different)}) == 7
    assert create(loud=True) is different[4]
    assert create(tools=()) is different[3]


def test_threads_get_one_cached_instance_between_them(registry: PatternRegistry) -> None:
    found: list[BasePattern] = []
    threads = [
        threading.Thread(target=lambda: found.append(registry.create_pattern("echo", cached=True))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(pattern) for pattern in found}) == 1


async def test_closing_closes_all_whatever_happens(registry: PatternRegistry) -> None:
    kept = [registry.create_pattern("echo", PatternConfig(name=name)) for name in ("one", "stuck", "two")]
    before = Echo.closed
    with pytest.raises(ExceptionGroup, match="could not be closed") as raised:
        await registry.aclose()
    assert Echo.closed == before + len(kept)
    assert [str(error) for error in raised.value.exceptions] == ["stuck"]


def test_the_global_registry_is_one() -> None:
    assert get_pattern_registry() is get_pattern_registry()


# Statistics

PLAN = {"total_executions", "successful_executions", "total_duration_ms", "average_duration_ms", "openai_metrics"}
METRICS = {
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "estimated_cost_usd",
    "function_calls",
    "assistant_runs",
}


async def test_statistics_follow_the_engine(registry: PatternRegistry) -> None:
    pattern = registry.create_pattern("echo")
    named = registry.create_pattern("echo", PatternConfig(name="named"))
    async with Engine(usage=registry.usage, clock=ManualClock(step_ns=1_000_000)) as engine:
        result = await engine.run(pattern, "a")
        await engine.run(named, "b")
        with pytest.raises(KeyError):
            await engine.run(pattern, "fail")
        stats = registry.get_usage_stats()
    assert stats.keys() >= PLAN
    assert stats["openai_metrics"].keys() >= METRICS
    assert (stats["total_executions"], stats["successful_executions"], stats["failed_executions"]) == (3, 2, 1)
    assert stats["executions_by_status"] == {"ok": 2, "error": 1}
    assert stats["errors_by_type"] == {"KeyError": 1}
    assert stats["average_duration_ms"] == pytest.approx(stats["total_duration_ms"] / 3)
    metrics = stats["openai_metrics"]
    assert (metrics["total_tokens"], metrics["input_tokens"], metrics["output_tokens"]) == (4500, 3000, 1500)
    assert (metrics["reasoning_tokens"], metrics["requests"]) == (300, 3)
    assert (metrics["function_calls"], metrics["assistant_runs"]) == (3, 3)
    assert result.cost.usd is not None
    assert metrics["estimated_cost_usd"] == pytest.approx(float(result.cost.usd) * 3)
    assert metrics["estimated_cost_usd"] == metrics["cost_low_usd"] == metrics["cost_high_usd"]
    assert stats["by_pattern"].keys() == {"echo", "named"}
    assert registry.get_usage_stats("named") == stats["by_pattern"]["named"]
    assert registry.get_usage_stats("named")["total_executions"] == 1


def test_nothing_has_run_yet(registry: PatternRegistry) -> None:
    stats = registry.get_usage_stats(PatternType.OPENAI_RAG)
    assert stats["total_executions"] == 0
    assert stats["average_duration_ms"] == 0
    assert stats["p50_duration_ms"] is None
    assert stats["openai_metrics"]["estimated_cost_usd"] == 0
    assert registry.get_usage_stats()["by_pattern"] == {}


def test_runs_may_be_reported_by_hand(registry: PatternRegistry) -> None:
    registry.update_usage_stats(
        PatternType.OPENAI_FUNCTION_CALLING,
        1500,
        True,
        {
            "input_tokens": 1000,
            "output_tokens": 200,
            "total_tokens": 1200,
            "estimated_cost_usd": 99.0,
            "function_calls": 2,
            "assistant_runs": 1,
        },
    )
    registry.update_usage_stats("openai_function_calling", duration_ms=500, success=False)
    registry.update_usage_stats("made_up", 1)
    stats = registry.get_usage_stats(PatternType.OPENAI_FUNCTION_CALLING)
    assert (stats["total_executions"], stats["successful_executions"]) == (2, 1)
    assert (stats["total_duration_ms"], stats["average_duration_ms"]) == (2000, 1000)
    metrics = stats["openai_metrics"]
    assert (metrics["total_tokens"], metrics["function_calls"], metrics["assistant_runs"]) == (1200, 2, 1)
    expected = PriceBook().cost(reported_request(1000, 200)).usd
    assert expected is not None
    assert metrics["estimated_cost_usd"] == float(expected), "costs follow from tokens"
    assert registry.usage.snapshot().by_framework().keys() == {"openai", "python"}


def reported_request(input_tokens: int, output_tokens: int) -> TokenUsage:
    metrics = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    events = report_events("x", "openai", "gpt-6-luna", Status.OK, 1, metrics, ManualClock())
    [request] = [event for event in events if isinstance(event, TokenUsage)]
    return request


@pytest.mark.parametrize(
    ("duration_ms", "metrics", "complaint"),
    [
        (-1, {}, "must not be negative"),
        (1, {"input_tokens": -1}, "must not be negative"),
        (1, {"tokens": 1}, "no tokens; its keys are assistant_runs"),
        (1, {"total_tokens": 10}, "give input_tokens and output_tokens"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    registry: PatternRegistry, duration_ms: float, metrics: dict[str, int], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        registry.update_usage_stats("echo", duration_ms, True, metrics)


async def test_a_pattern_may_go_without_a_cost(registry: PatternRegistry) -> None:
    config = OpenAIPatternConfig(name="free", cost_tracking_enabled=False)
    async with Engine(usage=registry.usage) as engine:
        pattern = registry.create_pattern("echo", config)
        await engine.run(pattern, "x")
    metrics = registry.get_usage_stats("free")["openai_metrics"]
    assert metrics["estimated_cost_usd"] is None
    assert metrics["total_tokens"] == 1500
    other = registry.create_pattern("echo", OpenAIPatternConfig(name="free"))
    stats = registry.get_usage_stats()
    assert stats["by_pattern"]["free"]["openai_metrics"]["estimated_cost_usd"], "the others of that name go with one"
    assert {instance.pattern for instance in registry.instances()} == {pattern, other}


def test_a_pattern_may_be_a_dataclass(registry: PatternRegistry) -> None:
    registry.register("data", Data)
    patterns = [registry.create_pattern("data") for _ in range(2)]
    assert patterns[0] == patterns[1]
    assert [instance.pattern_type for instance in registry.instances()] == ["data"] * 2
    patterns.clear()
    gc.collect()
    assert registry.instances() == ()


def test_a_forgotten_list_of_tools_is_named(registry: PatternRegistry) -> None:
    with pytest.raises(ConfigurationError, match="tools must be a list"):
        registry.create_pattern("echo", tools=print)  # type: ignore[arg-type] # that is the point


def test_the_registry_imports_no_framework() -> None:
    code = (
        "import sys, runmeter.patterns; runmeter.patterns.get_pattern_registry().get_usage_stats(); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()  # noqa: S603 - our own code
    assert not {"openai", "langgraph", "langchain_core", "pydantic"} & set(loaded)


@pytest.mark.parametrize(
    ("pattern_type", "library"), [("openai_function_calling", "openai"), ("augmented_llm", "langgraph")]
)
def test_preloading_imports_what_a_pattern_is_built_on(pattern_type: str, library: str) -> None:
    code = (
        "import sys; from runmeter.patterns import PatternRegistry; registry = PatternRegistry();"
        f"assert {library!r} not in sys.modules; registry.preload({pattern_type!r}); assert {library!r} in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # noqa: S603 - our own code


def test_preloading_an_unknown_pattern_says_so() -> None:
    with pytest.raises(UnknownPattern):
        PatternRegistry().preload("no_such_pattern")
