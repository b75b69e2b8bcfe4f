"""The registry: what can be created, what is in use, and what all of it used."""

import gc
import math
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from process_support import output_of, python

from runmeter.engine import (
    JSON,
    MSGPACK,
    ConfigurationError,
    Engine,
    ModelRequest,
    PriceBook,
    Provenance,
    TokenUsage,
    Usage,
    current_execution,
)
from runmeter.engine.testing import ManualClock
from runmeter.patterns import (
    AugmentedLLMPattern,
    BasePattern,
    MissingFramework,
    OpenAIBasePattern,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    PatternConfig,
    PatternRegistry,
    PatternResult,
    PatternType,
    UnknownPattern,
    get_pattern_registry,
)
from runmeter.patterns.config import DEFAULT_MODEL
from runmeter.patterns.reported_runs import read_metrics, reported


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


OPENAI_OPTIONS: dict[str, dict[str, Any]] = {
    "openai_multi_agent": {"agents": [{"name": "desk", "description": "Helps."}]},
    "openai_rag": {"sources": ["docs"]},
}


@pytest.mark.parametrize("pattern_type", [each for each in PatternType if each.framework == "openai"])
def test_a_pattern_on_the_openai_api_has_an_openai_config(registry: PatternRegistry, pattern_type: PatternType) -> None:
    kind: Any = registry.pattern_class(pattern_type).config_type
    config = kind.from_data({"api_key": "sk-any", "assistant_id": "support"} | OPENAI_OPTIONS.get(pattern_type, {}))
    pattern = registry.create_pattern(pattern_type, config)
    assert isinstance(pattern, OpenAIBasePattern)
    assert pattern.openai_config is pattern.config
    assert isinstance(pattern.openai_config, OpenAIPatternConfig)
    assert pattern.openai_config.assistant_id == "support"


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
    with pytest.raises(ConfigurationError, match="is not of the form 'module:Class'"):
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
    assert stats["cancelled_executions"] == 0
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


TOLD: dict[str, Any] = {
    "success": True,
    "duration_ms": 1500.0,
    "token_usage": {"input": 1000, "output": 200},
    "function_calls": 2,
    "assistant_run": True,
}
"""What the application that made a run may tell of it."""


@dataclass
class Metrics:
    """An application's own record of a run, with more in it than is counted."""

    success: bool | None = None
    duration_ms: float | None = None
    token_usage: dict[str, int] | None = None
    function_calls: int | None = None
    assistant_run: bool | None = None
    user: str = "Ada"


@pytest.mark.parametrize("kind", [dict, MappingProxyType, Metrics, SimpleNamespace])
def test_a_run_may_be_reported_by_its_metrics(registry: PatternRegistry, kind: Any) -> None:
    metrics = kind(TOLD) if kind in (dict, MappingProxyType) else kind(**TOLD)
    registry.update_usage_stats(PatternType.OPENAI_ASSISTANT, metrics)
    by_arguments = PatternRegistry()
    counts = {"input_tokens": 1000, "output_tokens": 200, "function_calls": 2, "assistant_runs": 1}
    by_arguments.update_usage_stats(PatternType.OPENAI_ASSISTANT, 1500, True, counts)
    stats = registry.get_usage_stats()
    assert stats == by_arguments.get_usage_stats()
    assert (stats["total_executions"], stats["successful_executions"], stats["total_duration_ms"]) == (1, 1, 1500)
    told = stats["openai_metrics"]
    assert (told["input_tokens"], told["output_tokens"], told["total_tokens"]) == (1000, 200, 1200)
    assert (told["function_calls"], told["assistant_runs"]) == (2, 1)
    assert told["assistant_run_durations"]["p50_ms"] == 1500
    assert told["estimated_cost_usd"] == price_of(1000, 200), "costs follow from tokens"


@pytest.mark.parametrize("name", ["x" * 1_000_000, "gpt-\ud800", "x" * 300])
def test_names_that_are_told_are_cut_and_cleaned_like_all_others(name: str) -> None:
    for pattern, model in ((name, "gpt-6-luna"), ("echo", name)):
        event = reported(pattern, "python", model, read_metrics(TOLD, None, None, None), ManualClock())
        assert JSON.decode(JSON.encode(event)) == event
        assert MSGPACK.decode(MSGPACK.encode(event)) == event
        assert len(JSON.encode(event)) < 2_000
    registry = PatternRegistry()
    for model in (name + "1", name + "2"):
        registry.update_usage_stats("echo", TOLD, model=model)
    models = registry.usage.snapshot().by_model()
    assert len(models) == 2, "two long names stay two"
    assert max(map(len, models)) <= 256


def test_tokens_may_be_told_by_an_object(registry: PatternRegistry) -> None:
    registry.update_usage_stats("echo", SimpleNamespace(token_usage=SimpleNamespace(input=1000, output=200)))
    assert registry.get_usage_stats("echo")["openai_metrics"]["total_tokens"] == 1200


@pytest.mark.parametrize("missing", TOLD)
def test_what_is_not_told_is_not_known(registry: PatternRegistry, missing: str) -> None:
    told = {name: value for name, value in TOLD.items() if name != missing}
    registry.update_usage_stats("openai_assistant", told)
    registry.update_usage_stats("openai_assistant", SimpleNamespace(**told))
    registry.update_usage_stats("openai_assistant", Metrics(**told))  # where it is None
    stats = registry.get_usage_stats("openai_assistant")
    assert (stats["total_executions"], stats["failed_executions"]) == (3, 0)
    assert stats["average_duration_ms"] == (0 if missing == "duration_ms" else 1500)
    assert stats["p50_duration_ms"] == (None if missing == "duration_ms" else 1500)
    metrics = stats["openai_metrics"]
    assert metrics["requests"] == (0 if missing == "token_usage" else 3)
    assert metrics["function_calls"] == (0 if missing == "function_calls" else 6)
    assert metrics["assistant_runs"] == (0 if missing == "assistant_run" else 3)
    durations = metrics["assistant_run_durations"]
    assert durations["count"] == (0 if missing in ("assistant_run", "duration_ms") else 3)


def test_a_run_without_a_duration_is_in_no_average(registry: PatternRegistry) -> None:
    registry.update_usage_stats("echo", {"duration_ms": 300})
    registry.update_usage_stats("echo", {"success": False})
    registry.update_usage_stats("echo", {})
    stats = registry.get_usage_stats("echo")
    assert (stats["total_executions"], stats["failed_executions"]) == (3, 1)
    assert (stats["total_duration_ms"], stats["average_duration_ms"], stats["p50_duration_ms"]) == (300, 300, 300)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"input": 1000, "output": 200, "total": 1200}, (1000, 200)),
        ({"input": 1000, "total": 1200}, (1000, 200)),
        ({"output": 200, "total": 1200}, (1000, 200)),
        ({"input": 1000}, (1000, 0)),
        ({"output": 200, "input": None}, (0, 200)),
        ({"input": 0, "output": 0, "total": 0}, (0, 0)),
        ({"total": 0}, (0, 0)),
        ({}, (0, 0)),
    ],
)
def test_tokens_may_be_told_in_part(
    registry: PatternRegistry, tokens: dict[str, int], expected: tuple[int, int]
) -> None:
    registry.update_usage_stats("echo", {"token_usage": tokens})
    metrics = registry.get_usage_stats("echo")["openai_metrics"]
    assert (metrics["input_tokens"], metrics["output_tokens"]) == expected
    whole = sum(value is not None for value in tokens.values()) > 1 or not any(tokens.values())
    assert metrics["estimated_cost_usd"] == (price_of(*expected) if whole else None)
    assert metrics["cost_low_usd"] >= 0
    assert (metrics["cost_high_usd"] is None) is not whole


def test_numbers_may_be_numpys(registry: PatternRegistry) -> None:
    numpy = pytest.importorskip("numpy")
    registry.update_usage_stats("echo", numpy.float64(250))
    registry.update_usage_stats("echo", {"duration_ms": numpy.float32(750), "token_usage": {"input": numpy.int64(5)}})
    stats = registry.get_usage_stats("echo")
    assert (stats["total_duration_ms"], stats["openai_metrics"]["input_tokens"]) == (1000, 5)


def test_a_run_may_be_reported_by_single_arguments(registry: PatternRegistry) -> None:
    registry.update_usage_stats("openai_function_calling", 1500, openai_metrics={"estimated_cost_usd": 99.0})
    registry.update_usage_stats("openai_function_calling", duration_ms=500, success=False)
    registry.update_usage_stats("made_up", 1, model="gpt-6.1-terra")
    stats = registry.get_usage_stats(PatternType.OPENAI_FUNCTION_CALLING)
    assert (stats["total_executions"], stats["successful_executions"]) == (2, 1)
    assert (stats["total_duration_ms"], stats["average_duration_ms"]) == (2000, 1000)
    assert stats["openai_metrics"]["estimated_cost_usd"] == 0
    assert registry.usage.snapshot().by_framework().keys() == {"openai", "python"}


def price_of(input_tokens: int, output_tokens: int) -> float:
    """What a request to the default model costs, in USD."""
    request = TokenUsage(
        run_id="a",
        seq=0,
        time_ns=0,
        call_id=0,
        provider="openai",
        operation="chat",
        model=DEFAULT_MODEL,
        provenance=Provenance.REPORTED,
        usage=Usage(input_tokens, output_tokens),
        start_ns=ManualClock().time_ns(),
        duration_ns=0,
    )
    usd = PriceBook().cost(request).usd
    assert usd is not None
    return float(usd)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"metrics": {"success": "yes"}}, r"^metrics\.success: Expected `bool \| null`, got `str`$"),
        ({"metrics": {"success": 1}}, r"^metrics\.success: "),
        ({"metrics": {"duration_ms": -1}}, r"^metrics\.duration_ms: Expected `float` >= 0\.0$"),
        ({"metrics": {"duration_ms": math.nan}}, r"^metrics\.duration_ms: "),
        ({"metrics": {"duration_ms": math.inf}}, r"^metrics\.duration_ms: "),
        ({"metrics": {"duration_ms": "5"}}, r"^metrics\.duration_ms: "),
        ({"metrics": {"duration_ms": True}}, r"^metrics\.duration_ms: "),
        ({"metrics": SimpleNamespace(duration_ms=-1)}, r"^metrics\.duration_ms: "),
        ({"metrics": {"token_usage": 7}}, r"^metrics\.token_usage: int has none of input, output, total"),
        ({"metrics": {"token_usage": Usage(3, 4)}}, r"^metrics\.token_usage: Usage has none of input, output, total"),
        ({"metrics": {"token_usage": {"input": -1}}}, r"^metrics\.token_usage\.input: "),
        ({"metrics": {"token_usage": {"output": 1.5}}}, r"^metrics\.token_usage\.output: "),
        ({"metrics": {"token_usage": {"input": 10**30}}}, r"^metrics\.token_usage\.input: "),
        ({"metrics": {"token_usage": {"prompt": 1}}}, r"^metrics\.token_usage has no 'prompt'; its keys are input, "),
        ({"metrics": SimpleNamespace(token_usage={"prompt": 1})}, r"^metrics\.token_usage has no 'prompt'"),
        ({"metrics": {"token_usage": {"total": 10}}}, "give input and output tokens, not their total alone"),
        ({"metrics": {"token_usage": {"input": 3, "output": 4, "total": 8}}}, "do not add up to their total, 8"),
        ({"metrics": {"token_usage": {"input": 9, "total": 8}}}, "do not add up to their total, 8"),
        ({"metrics": {"function_calls": -1}}, r"^metrics\.function_calls: "),
        ({"metrics": {"function_calls": [1]}}, r"^metrics\.function_calls: "),
        ({"metrics": {"assistant_run": "run_1"}}, r"^metrics\.assistant_run: "),
        ({"metrics": {"tokens": 1}}, r"^metrics has no 'tokens'; its keys are success, duration_ms, "),
        ({"metrics": {3: 1}}, "^metrics has no 3; its keys are "),
        ({"metrics": "ok"}, "^metrics: str has none of success, duration_ms, "),
        ({"metrics": object()}, "^metrics: object has none of success, duration_ms, "),
        ({}, "^metrics: NoneType has none of success, duration_ms, "),
        ({"metrics": TOLD, "success": True}, "^give metrics, or duration_ms with success and openai_metrics"),
        ({"metrics": TOLD, "duration_ms": 1}, "^give metrics, or duration_ms"),
        ({"metrics": TOLD, "openai_metrics": {}}, "^give metrics, or duration_ms"),
        ({"metrics": 1, "model": ""}, "^model: expected a name, is ''$"),
        ({"metrics": -1}, "^duration_ms: Expected `float` >= 0"),
        ({"metrics": 1, "success": "no"}, "^success: "),
        ({"metrics": 1, "openai_metrics": {"input_tokens": -1}}, r"^openai_metrics\.input_tokens: "),
        ({"metrics": 1, "openai_metrics": {"input_tokens": "1"}}, r"^openai_metrics\.input_tokens: "),
        ({"metrics": 1, "openai_metrics": {"assistant_runs": True}}, r"^openai_metrics\.assistant_runs: "),
        (
            {"metrics": 1, "openai_metrics": {"tokens": 1}},
            "^openai_metrics has no 'tokens'; its keys are input_tok",
        ),
        ({"metrics": 1, "openai_metrics": {"total_tokens": 10}}, "give input and output tokens"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(
    registry: PatternRegistry, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        registry.update_usage_stats("echo", **arguments)
    assert registry.usage.snapshot().cells == (), "nothing is counted"


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
    loaded = output_of(python(code)).split()
    assert not {"openai", "langgraph", "langchain_core", "pydantic"} & set(loaded)


@pytest.mark.parametrize(
    ("pattern_type", "library"), [("openai_function_calling", "openai"), ("augmented_llm", "langgraph")]
)
def test_preloading_imports_what_a_pattern_is_built_on(pattern_type: str, library: str) -> None:
    code = (
        "import sys; from runmeter.patterns import PatternRegistry; registry = PatternRegistry();"
        f"assert {library!r} not in sys.modules; registry.preload({pattern_type!r}); assert {library!r} in sys.modules"
    )
    output_of(python(code))


def test_preloading_an_unknown_pattern_says_so() -> None:
    with pytest.raises(UnknownPattern):
        PatternRegistry().preload("no_such_pattern")
