"""The registry: which patterns there are, the instances made of them, and what all of them used."""

import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any, cast
from weakref import WeakValueDictionary

from runmeter.engine import Clock, ConfigurationError, SystemClock, UsageAggregator

from .base import BasePattern
from .config import DEFAULT_MODEL, OpenAIPatternConfig, PatternConfig, PatternType, check_config
from .errors import MissingFramework, UnknownPattern
from .reported_runs import read_metrics, reported
from .tools.tool import ToolLike, as_tools
from .usage_report import UsageStats, stats_of

logger = logging.getLogger("runmeter")

DEFAULTS = {
    PatternType.AUGMENTED_LLM: "runmeter.patterns.langgraph.augmented_llm:AugmentedLLMPattern",
    PatternType.PROMPT_CHAINING: "runmeter.patterns.langgraph.prompt_chaining:PromptChainingPattern",
    PatternType.ROUTING: "runmeter.patterns.langgraph.routing:RoutingPattern",
    PatternType.PARALLELIZATION: "runmeter.patterns.langgraph.parallelization:ParallelizationPattern",
    PatternType.ORCHESTRATOR_WORKERS: "runmeter.patterns.langgraph.orchestrator_workers:OrchestratorWorkersPattern",
    PatternType.EVALUATOR_OPTIMIZER: "runmeter.patterns.langgraph.evaluator_optimizer:EvaluatorOptimizerPattern",
    PatternType.OPENAI_ASSISTANT: "runmeter.patterns.openai.assistant:OpenAIAssistantPattern",
    PatternType.OPENAI_FUNCTION_CALLING: "runmeter.patterns.openai.function_calling:OpenAIFunctionCallingPattern",
    PatternType.OPENAI_CONVERSATION: "runmeter.patterns.openai.conversation:OpenAIConversationPattern",
    PatternType.OPENAI_STREAMING: "runmeter.patterns.openai.streaming:OpenAIStreamingPattern",
    PatternType.OPENAI_MULTI_AGENT: "runmeter.patterns.openai.multi_agent:OpenAIMultiAgentPattern",
    PatternType.OPENAI_RAG: "runmeter.patterns.openai.rag:OpenAIRAGPattern",
}
"""The patterns every registry has. Their modules are imported when the first of a kind is created."""


@dataclass(frozen=True, slots=True)
class PatternInstance:
    """A pattern instance that is in use."""

    pattern: BasePattern
    pattern_type: str
    framework: str
    created_at: datetime
    """The time of its creation, in UTC."""


@dataclass(frozen=True, slots=True)
class _Registration:
    """A pattern class that can be created by its name."""

    name: str
    framework: str
    pattern: type[BasePattern] | str
    """The class, or where it is: `module:Class`."""

    def load(self) -> type[BasePattern]:
        if not isinstance(self.pattern, str):
            return self.pattern
        module, _, name = self.pattern.partition(":")
        with self._missing_named():
            return cast("type[BasePattern]", getattr(import_module(module), name))

    def create(self, *arguments: Any, **options: Any) -> BasePattern:
        pattern = self.load()
        with self._missing_named():  # a default model's library is imported only now
            return pattern(*arguments, **options)

    @contextmanager
    def _missing_named(self) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library == __name__.partition(".")[0]:
                raise
            raise MissingFramework(self.name, self.framework, library) from error


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class _Record:
    """A registry's record of an instance. It must not hold the instance itself, or that would live for ever."""

    name: str
    framework: str
    created_at: datetime
    recipe: tuple[Any, ...] | None
    """The type, config and options it was made of, if it may be handed out again."""


class PatternRegistry:
    """Creates patterns, knows those in use, and keeps their statistics. Safe to share between threads.

    Instances are known only as long as they are referenced elsewhere: the registry keeps none alive.

    Args:
        usage: Where statistics are kept; hand it to the engine, `Engine(usage=registry.usage)`.
        clock: Says when instances were created.
    """

    def __init__(self, usage: UsageAggregator | None = None, *, clock: Clock | None = None) -> None:
        self.usage = UsageAggregator() if usage is None else usage
        self._clock = clock or SystemClock()
        self._registrations: dict[str, _Registration] = {}
        self._instances: WeakValueDictionary[_Record, BasePattern] = WeakValueDictionary()
        self._lock = threading.RLock()
        for pattern_type, path in DEFAULTS.items():
            self.register(pattern_type, path)

    # Which patterns there are

    def register(
        self,
        pattern_type: PatternType | str,
        pattern: type[BasePattern] | str,
        *,
        framework: str | None = None,
        replace: bool = False,
    ) -> None:
        """Make a pattern available by a name.

        Args:
            pattern_type: Its name.
            pattern: The class, or where it is as `module:Class`: then it is imported when first needed.
            framework: By default the class's own, or the one of the pattern type.
            replace: Whether it may take the place of another.

        Raises:
            ConfigurationError: the name is taken, the class is not a pattern, or the framework cannot be told.
        """
        name = str(pattern_type)
        if isinstance(pattern, str):
            if not re.fullmatch(r"[\w.]+:\w+", pattern):
                raise ConfigurationError(f"pattern {name!r}: {pattern!r} is not of the form 'module:Class'")
            framework = framework or (PatternType(name).framework if name in list(PatternType) else None)
        elif _is_pattern_class(pattern):
            framework = framework or getattr(pattern, "framework", None)
        else:
            raise ConfigurationError(f"pattern {name!r}: {pattern!r} does not derive from BasePattern")
        if framework is None:
            raise ConfigurationError(f"pattern {name!r}: say which framework it is built on")
        with self._lock:
            if name in self._registrations and not replace:
                raise ConfigurationError(f"pattern {name!r} is registered already; replace=True takes its place")
            self._registrations[name] = _Registration(name, framework, pattern)
        logger.debug("pattern %r is registered, on %s", name, framework)

    def preload(self, *pattern_types: PatternType | str) -> None:
        """Import the libraries that patterns are built on, now and not while something waits for their first run.

        Raises:
            UnknownPattern: one of them is not registered.
            MissingFramework: the library it is built on is not installed.
        """
        for name in pattern_types:
            self.pattern_class(name).preload()

    def pattern_class(self, pattern_type: PatternType | str) -> type[BasePattern]:
        """A pattern's class, which is imported if it was not yet. Its `config_type` is the config it takes.

        Raises:
            UnknownPattern: it is not registered.
            MissingFramework: the library it is built on is not installed.
        """
        return self._registration(pattern_type).load()

    @property
    def available(self) -> tuple[str, ...]:
        """The names of the patterns that can be created."""
        return tuple(self._registrations)

    def get_pattern_framework(self, pattern_type: PatternType | str) -> str:
        """Look up a pattern's framework: `openai`, `langgraph`, or what it was registered with.

        Raises:
            UnknownPattern: there is no such pattern.
        """
        name = str(pattern_type)
        registration = self._registrations.get(name)
        if registration is not None:
            return registration.framework
        if name in list(PatternType):
            return PatternType(name).framework
        raise UnknownPattern(name, self.available)

    def is_openai_pattern(self, pattern_type: PatternType | str) -> bool:
        """Tell whether a pattern uses the OpenAI API directly. Raises `UnknownPattern`."""
        return self.get_pattern_framework(pattern_type) == "openai"

    def is_langgraph_pattern(self, pattern_type: PatternType | str) -> bool:
        """Tell whether a pattern is a LangGraph graph. Raises `UnknownPattern`."""
        return self.get_pattern_framework(pattern_type) == "langgraph"

    # Instances

    def create_pattern(
        self,
        pattern_type: PatternType | str,
        config: PatternConfig | None = None,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        cached: bool = False,
        **options: Any,
    ) -> BasePattern:
        """Create a pattern by the name of its type.

        Args:
            pattern_type: Which.
            config: What to do and how; by default the defaults.
            tools: Functions, LangChain tools, dicts with a schema and a `handler`, or `Tool`s.
            ws_streaming: A WebSocket that deltas are for.
            cached: Return the instance made before of the same things, if it is still in use.
            options: What this pattern's class takes beyond these, such as `checkpointer` of an augmented LLM.

        Raises:
            UnknownPattern: it is not registered.
            MissingFramework: the library it is built on is not installed.
            ConfigurationError: the config is not of the kind it needs, or one of `tools` is not a tool.
        """
        registration = self._registration(pattern_type)
        name = registration.name
        needed = OpenAIPatternConfig if registration.framework == "openai" else PatternConfig
        config = needed() if config is None else config
        check_config(name, needed, config)
        tools = as_tools(tools)
        recipe = (name, config, tools, ws_streaming, options) if cached else None
        with self._lock:
            found = self._find(recipe) if recipe else None
            if found is None:
                pattern = registration.create(config, tools, ws_streaming, **options)
                self._keep(pattern, registration, recipe)
            else:
                pattern = found
        verdict = "created" if found is None else "is in use already, made of the same things: handed out again"
        logger.debug("pattern %r (%s, %d tools) %s", pattern.name, name, len(tools), verdict)
        return pattern

    def instances(self) -> tuple[PatternInstance, ...]:
        """List the patterns created here that are in use, oldest first."""
        with self._lock:
            known = [
                PatternInstance(pattern, record.name, record.framework, record.created_at)
                for record, pattern in self._instances.items()
            ]
        return tuple(sorted(known, key=lambda instance: instance.created_at))

    async def aclose(self) -> None:
        """Close the clients and connections of all patterns in use. They open anew if they are used again.

        Raises:
            ExceptionGroup: some could not be closed; all others were.
        """
        errors = []
        instances = self.instances()
        logger.debug("closing %d patterns", len(instances))
        for instance in instances:
            try:
                await instance.pattern.aclose()
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("some patterns could not be closed", errors)

    def _registration(self, pattern_type: PatternType | str) -> _Registration:
        registration = self._registrations.get(str(pattern_type))
        if registration is None:
            raise UnknownPattern(str(pattern_type), self.available)
        return registration

    def _keep(self, pattern: BasePattern, registration: _Registration, recipe: tuple[Any, ...] | None) -> None:
        created_at = datetime.fromtimestamp(self._clock.time_ns() / 1e9, UTC)
        # By record, since a pattern may be unhashable, or equal to another: a dataclass is.
        self._instances[_Record(registration.name, registration.framework, created_at, recipe)] = pattern

    def _find(self, recipe: tuple[Any, ...]) -> BasePattern | None:
        """Find an instance made of an equal config, and else the very same objects."""
        for record, pattern in self._instances.items():
            if record.recipe is not None and _is_same(record.recipe, recipe):
                return pattern
        return None

    # Statistics

    def update_usage_stats(
        self,
        pattern_type: PatternType | str,
        metrics: Any = None,
        success: bool | None = None,
        openai_metrics: Mapping[str, Any] | None = None,
        *,
        duration_ms: float | None = None,
        model: str = DEFAULT_MODEL,
    ) -> None:
        """Count a run made outside an engine. Those of an engine with `usage=registry.usage` count by themselves.

        What is not told is not known: a run without a duration is in no average, a run told only one of its input and
        output tokens has a cost without an upper end. A run of which nothing else is said ended well.

            registry.update_usage_stats("openai_rag", {"success": True, "duration_ms": 1500.0, "function_calls": 2})
            registry.update_usage_stats("openai_rag", 1500.0, True, {"function_calls": 2})

        Args:
            pattern_type: What ran: a pattern's type, or the name it was given.
            metrics: A mapping with these keys, or an object with these attributes, as far as they are known: `success`;
                `duration_ms`, milliseconds; `token_usage`, a mapping with `input` and `output`; `function_calls`, how
                many; `assistant_run`, whether an assistant ran, or how often. A bare number is the duration.
            success: Whether it ended well. This, and the next two, are in place of `metrics`, not beside them.
            openai_metrics: `input_tokens`, `output_tokens`, `function_calls`, `assistant_runs`, as far as known.
            duration_ms: How long it took, in milliseconds.
            model: What used the tokens.

        Raises:
            ConfigurationError: a value is not of its kind, or a key is unknown. Then nothing is counted.
        """
        name = str(pattern_type)
        told = read_metrics(metrics, success, openai_metrics, duration_ms)
        try:
            framework = self.get_pattern_framework(name)
        except UnknownPattern:
            framework = "python"
        self.usage.fold([reported(name, framework, model, told, self._clock)])

    def get_usage_stats(self, pattern_type: PatternType | str | None = None) -> UsageStats:
        """Report runs and their usage: of one pattern by its name, or of all, then with `by_pattern`.

        For values with more in them (by tag, by model, exact costs) see `usage.snapshot()`.
        """
        snapshot = self.usage.snapshot()
        rows = snapshot.by_pattern()
        uncosted = self._uncosted()
        if pattern_type is not None:
            name = str(pattern_type)
            row = rows.get(name) or type(snapshot.total)()
            return stats_of(row, with_cost=name not in uncosted)
        total = stats_of(snapshot.total)
        total["by_pattern"] = {name: stats_of(row, with_cost=name not in uncosted) for name, row in rows.items()}
        return total

    def _uncosted(self) -> set[str]:
        """The names of patterns of which every instance in use has its cost tracking switched off."""
        with self._lock:
            tracked = [
                (each.name, getattr(each.config, "cost_tracking_enabled", True)) for each in self._instances.values()
            ]
        return {name for name, _ in tracked} - {name for name, is_tracked in tracked if is_tracked}


def _is_pattern_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BasePattern)


def _is_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    (name, config, tools, socket, options), (name_, config_, tools_, socket_, options_) = one, other
    return (
        name == name_
        and config == config_
        and type(config) is type(config_)
        and len(tools) == len(tools_)
        and all(tool is tool_ for tool, tool_ in zip(tools, tools_, strict=True))
        and socket is socket_
        and options.keys() == options_.keys()
        and all(options[key] is options_[key] for key in options)
    )


@cache
def get_pattern_registry() -> PatternRegistry:
    """The process's own registry, made on first use."""
    return PatternRegistry()


__all__ = ["DEFAULTS", "PatternInstance", "PatternRegistry", "get_pattern_registry"]
