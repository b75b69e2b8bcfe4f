"""Pattern types and configurations, checked when they are made."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from runmeter.engine import ConfigurationError

from .openai_client.clients import check_key
from .tools.hosted import hosted_tools

DEFAULT_MODEL = "gpt-6-luna"
"""The cheapest current model (OpenAI price list, 2026-11)."""

Framework: TypeAlias = Literal["openai", "langgraph"]
ApiKey: TypeAlias = str | Callable[[], Awaitable[str]]
"""An API key, or an async function that gets one: from a secrets manager, for example."""

Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
AtLeastOne: TypeAlias = Annotated[int, Meta(ge=1)]
Name: TypeAlias = Annotated[str, Meta(min_length=1)]


class PatternType(StrEnum):
    """The names of the twelve patterns that the engine brings."""

    AUGMENTED_LLM = "augmented_llm"
    PROMPT_CHAINING = "prompt_chaining"
    ROUTING = "routing"
    PARALLELIZATION = "parallelization"
    ORCHESTRATOR_WORKERS = "orchestrator_workers"
    EVALUATOR_OPTIMIZER = "evaluator_optimizer"
    OPENAI_ASSISTANT = "openai_assistant"
    OPENAI_FUNCTION_CALLING = "openai_function_calling"
    OPENAI_CONVERSATION = "openai_conversation"
    OPENAI_STREAMING = "openai_streaming"
    OPENAI_MULTI_AGENT = "openai_multi_agent"
    OPENAI_RAG = "openai_rag"

    @property
    def framework(self) -> Framework:
        """The framework that the pattern is built on."""
        return "openai" if self.startswith("openai_") else "langgraph"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A value whose fields are checked against their types when it is made: a config, or a part of one.

    Raises:
        ConfigurationError: a value has the wrong type or lies outside its range.
    """

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Make a config, or a part of one, of plain data, such as a table of a TOML file.

        Raises:
            ConfigurationError: a name in it is unknown, a needed one is missing, or a value does not fit.
        """
        names = [each.name for each in fields(cls)]
        for unknown in data.keys() - set(names):
            like = get_close_matches(unknown, names, n=1)
            advice = f"did you mean {like[0]!r}?" if like else f"there are {', '.join(sorted(names))}"
            raise ConfigurationError(f"{cls.__name__} has no {unknown!r}: {advice}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ConfigurationError(str(error).replace(".__init__()", "")) from None

    def __post_init__(self) -> None:
        kind_of_config: Any = type(self)
        for name, kind in _checked_fields(kind_of_config):
            value = _with_parts(getattr(self, name), kind)
            try:
                converted = msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                raise ConfigurationError(f"{type(self).__name__}.{name}: {error}, is {_shown(value)}") from error
            if converted is not getattr(self, name):  # a list that becomes a tuple, an int a float
                object.__setattr__(self, name, converted)


@dataclass(frozen=True, kw_only=True)
class PatternConfig(Checked):
    """Settings that every pattern takes. Checked when they are made.

    Raises:
        ConfigurationError: a value has the wrong type or lies outside its range.
    """

    name: Name | None = None
    """The pattern's name in statistics and traces; by default its type."""
    system_prompt: str | None = None
    """Instructions before all messages."""
    max_iterations: AtLeastOne = 10
    """Requests to the model until it has answered: in a run, or in each step, worker or agent of a run that has
    several. In the last one tools are switched off, so that an answer must come."""
    max_function_calls: Count = 10
    """Function calls in one run, all its steps together. Further ones are refused, and the model is asked for an answer
    without tools."""
    tool_timeout: Seconds | None = None
    """Seconds a function call may take where the tool itself does not say."""
    request_timeout: Seconds = 600.0
    """Seconds one request to the model may take, its answer included."""
    max_retries: Count = 2
    """Upper bound on retries of a request after errors that may pass."""


@dataclass(frozen=True, kw_only=True)
class OpenAIPatternConfig(PatternConfig):
    """Settings of every pattern that asks OpenAI's models. Checked when they are made.

    Raises:
        ConfigurationError: a value has the wrong type or lies outside its range, or an id is one of the Assistants API.
    """

    openai_model: Name = DEFAULT_MODEL
    openai_temperature: Annotated[float, Meta(ge=0, le=2)] | None = 0.1
    """Sent only to models that take it: current reasoning models refuse it."""
    openai_max_tokens: Annotated[int, Meta(ge=16)] | None = None
    """Output tokens of one answer, reasoning included. The API takes no less than 16 (Responses API reference,
    `max_output_tokens`, 2026-11)."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    service_tier: str | None = None
    """`default`, `flex`, `priority` …; what was served, not what was asked for, is what is billed and reported."""
    store: bool = False
    """Whether OpenAI keeps the answers, so that `previous_response_id` can refer to them."""

    assistant_id: str | None = None
    """The assistant's name in statistics. Not an id of the Assistants API, which is gone. This and the next field,
    `thread_id` and `persistent_thread` are for the assistant and conversation patterns; others do not read them."""
    assistant_instructions: str | None = None
    """The assistant's instructions. Other patterns read `system_prompt`."""
    assistant_tools: tuple[str | Mapping[str, Any], ...] = ()
    """Tools that OpenAI itself runs, by name, such as `"code_interpreter"`, or as definitions, such as
    `{"type": "file_search", "vector_store_ids": ["vs_1"]}`. The config keeps definitions."""
    max_tool_calls: AtLeastOne | None = None
    """How often OpenAI may run its own tools (`assistant_tools`) for one answer. Each time the model reads everything
    again: without a limit an answer's cost has no upper bound, and a budget in USD or tokens refuses it."""
    thread_id: str | None = None
    """The conversation to go on with."""
    persistent_thread: bool = False
    """Whether the conversation is kept when the pattern is closed."""

    function_calling_mode: Literal["auto", "none", "required"] = "auto"
    """Whether the model may call functions, must not, or must in its first answer."""
    parallel_tool_calls: bool = True
    """Whether the model may call several functions at once, and whether these then run at once."""
    stream_responses: bool = True
    """Stream answers also where they are not handed out in pieces: then the time to the first chunk is known, and of an
    answer that is cut, how much came. Each piece takes the OpenAI client about a tenth of a millisecond of CPU time:
    False asks for such answers at once. Read by the `openai_*` patterns; the others
    stream where the answer's pieces are taken."""
    enable_token_counting: bool = True
    """Count locally where the API reports no usage; it is then marked as an estimate. False leaves it unknown.
    The LangGraph patterns do so for any model, with OpenAI's vocabularies."""
    recover_usage: bool = False
    """Where a stream was cut, or left, ask the API what its answer used, if `store` has it kept. This holds up the end
    of the request, and so a cancellation, for at most a second. Read by the `openai_*` patterns."""
    cost_tracking_enabled: bool = True
    """False leaves `estimated_cost_usd` empty in the registry's statistics of this name, as long as instances of that
    name are in use and all of them say so."""

    check_shutdown_date: bool = False
    """Ask the API once for each model when it is shut down, besides looking it up in the table that ships with the
    package. The LangGraph patterns do so for their default model."""

    base_url: str | None = None
    """By default `OPENAI_BASE_URL` or OpenAI's own."""
    api_key: ApiKey | None = field(default=None, repr=False)
    """By default `OPENAI_API_KEY`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "assistant_tools", hosted_tools(self.assistant_tools))
        if self.api_key is not None and not callable(self.api_key):
            check_key(f"{type(self).__name__}.api_key", self.api_key)
        if self.base_url is not None and ("?" in self.base_url or "/deployments/" in self.base_url):
            raise ConfigurationError(
                "base_url: paths are put after it, so that it can have no query, nor the path of a deployment: give "
                "https://<resource>.openai.azure.com/openai/v1, or the pattern client=AsyncAzureOpenAI(...)"
            )
        for name, prefix in (("assistant_id", "asst_"), ("thread_id", "thread_")):
            value = getattr(self, name)
            if value is not None and value.startswith(prefix):
                raise ConfigurationError(
                    f"{name} {value!r} belongs to the Assistants API, which ended on 2026-08-26: "
                    "threads are conversations now (ids begin with 'conv_'), and assistants are configured in code"
                )


def check_config(pattern: str, needed: type[PatternConfig], config: object) -> None:
    """Check that a pattern is given the class of config it needs.

    Raises:
        ConfigurationError: it is not; the message names both kinds.
    """
    if not isinstance(config, needed):
        given = f"the class {config.__name__}" if isinstance(config, type) else type(config).__name__
        raise ConfigurationError(f"pattern {str(pattern)!r} needs a config of type {needed.__name__}, not {given}")


Config = TypeVar("Config", bound=PatternConfig)


def specialise(pattern: str, needed: type[Config], config: PatternConfig) -> Config:
    """Make a pattern's own class of config of a more general one: what that does not say has its default.

    Raises:
        ConfigurationError: the config says things that this pattern cannot be told.
    """
    if isinstance(config, needed):
        return config
    given = {each.name: getattr(config, each.name) for each in fields(config)}
    foreign = given.keys() - {each.name for each in fields(needed)}
    if foreign:
        raise ConfigurationError(
            f"pattern {str(pattern)!r} needs a config of type {needed.__name__}, not {type(config).__name__}: "
            f"it has no {', '.join(sorted(foreign))}"
        )
    return needed(**given)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that nests too deeply"


def _with_parts(value: Any, kind: Any) -> Any:
    """Make parts of plain data in a value what they are, so that an unknown name in them is an error."""
    part, by_name = _part_of(kind)
    if part is None:
        return value
    match value:
        case Mapping() if by_name:
            return {name: _as_part(each, part) for name, each in value.items()}
        case list() | tuple():
            return tuple(_as_part(each, part) for each in value)
        case _:
            return _as_part(value, part)


def _as_part(value: Any, part: type[Checked]) -> Any:
    return part.from_data(value) if isinstance(value, Mapping) else value


@cache
def _part_of(kind: Any) -> tuple[type[Checked] | None, bool]:
    """Find the kind of part that a field holds, itself or several of them; and whether by name."""
    if isinstance(kind, type) and issubclass(kind, Checked):
        return kind, False
    for part, by_name in map(_part_of, get_args(kind)):
        if part is not None:
            return part, by_name or get_origin(kind) is Mapping
    return None, False


@cache
def _checked_fields(config: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(config, include_extras=True)
    return tuple((each.name, hints[each.name]) for each in fields(config) if each.name != "api_key")
