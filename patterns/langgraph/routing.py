"""Routing: a request is classified, and answered by what its route says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

import msgspec
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command
from msgspec import Meta

from runmeter.engine import ConfigurationError

from ..base import PatternResult
from ..config import Checked, OpenAIPatternConfig, PatternConfig, PatternType
from ..context import conversation_id_of
from ..errors import MalformedAnswer
from ..requests.retry import RetryPolicy
from ..tools.tool import ToolLike
from .base import GraphRun, LangGraphBasePattern, conversation_of, join_texts
from .delegates import DelegateLike, answer_with, as_delegate, as_result
from .nodes import metered
from .structured import Shape, shape_of

CLASSIFY = (
    "Decide which route fits the user's last message, as part of the conversation. Do not answer the message itself. "
    "`route` is the name of one of the routes below, just as it is written there; `confidence` is how sure you are, "
    "from 0 (a guess) to 1 (certain).\n\nRoutes:"
)

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
RouteName: TypeAlias = Annotated[str, Meta(pattern=r"\S")]
FallBack: TypeAlias = Literal["unknown_label", "low_confidence", "malformed"]
"""The reason why a request took the default route: the model named a route that there is not, was not sure
enough, or gave an answer that could not be read, twice."""


@dataclass(frozen=True, kw_only=True)
class Route(Checked):
    """A destination of requests: its description for the model that decides, and its instructions.

    Raises:
        ConfigurationError: a value has the wrong type.
    """

    name: RouteName
    description: str = ""
    """The messages it is for, told to the model that decides."""
    instructions: str | None = None
    """Instructions of the model that answers, after the config's `system_prompt`."""


GENERAL = Route(name="general", description="Anything that no other route fits.")
ROUTES = (
    Route(
        name="question",
        description="A question of fact, or something to be explained.",
        instructions="Answer the question exactly. Say so where you do not know.",
    ),
    Route(
        name="writing",
        description="A text to be written, improved, shortened or translated.",
        instructions="Write what is asked for, and nothing around it.",
    ),
    Route(
        name="code",
        description="Code to be written, explained or mended, or another technical problem.",
        instructions="Give code that works, with a short explanation. State what you assume.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class RoutingConfig(OpenAIPatternConfig):
    """Settings of the routing pattern. Checked when they are made.

    Raises:
        ConfigurationError: a value has the wrong type or lies outside its range, two routes have one name, the default
            route is none of them, or there is nothing to choose between.
    """

    routes: tuple[Route, ...] = ROUTES
    """Names that differ in case or spaces only are one."""
    default_route: RouteName = GENERAL.name
    """Taken when no other is. `general` need not be among the routes: it is then added."""
    min_confidence: Share = 0.5
    """Below it the default route is taken: then the model thinks it likelier that it is wrong."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [_plain(route.name) for route in self.routes]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigurationError(f"RoutingConfig.routes: there are two routes {', '.join(sorted(twice))}")
        if _plain(self.default_route) not in self.by_label:
            raise ConfigurationError(f"RoutingConfig.default_route: there is no route {self.default_route!r}")
        if len(self.by_label) < 2:
            raise ConfigurationError("RoutingConfig.routes: there is nothing to choose between")

    @property
    def by_label(self) -> dict[str, Route]:
        """The config's routes, by their names in lower case without spaces around."""
        routes = {_plain(route.name): route for route in self.routes}
        if self.default_route == GENERAL.name:
            routes.setdefault(GENERAL.name, GENERAL)
        return routes


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """Which route fits a message."""

    reason: str
    """First, so that the model thinks before it decides."""
    route: str
    confidence: Share


class RoutedResult(PatternResult, frozen=True, kw_only=True):
    """Result of the routing pattern: the answer of what handled the message, and how that was chosen."""

    route: str
    """The route that was taken."""
    label: str | None
    """The route as the model named it; this, `confidence` and `reason` are None where its answer could not be read."""
    confidence: float | None
    reason: str | None
    fell_back: FallBack | None = None
    """The reason why the default route was taken; None if the model chose the route that was taken."""
    handled: Any = None
    """The value that the route's handler returned; None where the model answered."""


class _Decision(msgspec.Struct, frozen=True):
    route: Route
    said: Classification | None
    fell_back: FallBack | None = None


class _State(TypedDict, total=False):
    messages: list[BaseMessage]
    decision: _Decision
    result: PatternResult
    handled: Any


@dataclass(kw_only=True)
class _Run(GraphRun):
    context: Mapping[str, Any]
    conversation_id: str | None


class RoutingPattern(LangGraphBasePattern):
    """A model classifies the message; then the route's handler answers it, or the model with the route's instructions.

    The graph has three nodes: `classify` decides, and goes on to `answer`, where the model answers with the help of
    tools, or to `handle`, where a handler does. Whatever the classification says, an answer comes of it: where no
    route can be made out the default one is taken, and the result says why.

    Every handler is a child run, a function too. What it says in deltas is handed out as this run's; what it returns
    without any is handed out in one piece. Of the context the pattern reads `instructions`, in place of
    `system_prompt`, and `conversation_id`, which it does not use but hands on; handlers get all of it.

    Args:
        config: A `RoutingConfig`, or a more general one.
        tools: What the model may call where it answers itself.
        ws_streaming: See `BasePattern`.
        handlers: By route name, a pattern, or a function `(messages, context)`, sync or async. It gets LangChain
            messages, and returns a `PatternResult`, text, or anything, whose text is then the answer.
        model: Any LangChain chat model; by default OpenAI's, over the Responses API.
        retry: When to try a request again; by default what the config says.

    Raises:
        ConfigurationError: the config is of another kind, a tool is not one, or a handler is not one or of no route.
    """

    pattern_type = PatternType.ROUTING
    operation = "invoke_workflow"
    config_type = RoutingConfig
    config: RoutingConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        handlers: Mapping[str, DelegateLike] | None = None,
        model: BaseChatModel | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, model=model, retry=retry)
        self._routes = self.config.by_label
        self._default = self._routes[_plain(self.config.default_route)]
        self._handlers = self._check_handlers(handlers or {})
        self._classification = _shape(list(self._routes.values()))
        self._question = "\n".join([CLASSIFY, *map(_describe, self._routes.values())])
        graph = StateGraph(_State, context_schema=_Run)
        graph.add_node("classify", metered(self._classify_node), destinations=("answer", "handle"))
        graph.add_node("answer", metered(self._answer_node))
        graph.add_node("handle", metered(self._handle_node))
        graph.add_edge(START, "classify")
        graph.add_edge("answer", END)
        graph.add_edge("handle", END)
        self.graph = self._compile(graph)

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> RoutedResult:
        """Classify the message, and have the route's handler or the model answer.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: What the run is told beyond its messages: see the class.

        Raises:
            AsyncioRequired: the event loop is not asyncio's.
            ConfigurationError: a message is not valid, or there is no API key.
            ResponseFailed: an answer was not complete in time, or its stream was cut.
            Exception: whatever the model or the handler raises.
        """
        self._check_loop()
        context = context or {}
        conversation = conversation_id_of(context)
        state = _State(messages=conversation_of(messages))
        with self._begin(_Run, context, context=context, conversation_id=conversation) as run:
            ended = await self._invoke(self.graph, state, run, steps=5)
        return _routed(ended["decision"], ended["result"], run, ended.get("handled"))

    async def _classify_node(self, state: _State, runtime: Runtime[_Run]) -> Command[str]:
        try:
            said = await self._ask_for(
                runtime.context, self._classification, state["messages"], instructions=self._question
            )
            decision = self._decide(said)
        except MalformedAnswer:
            decision = _Decision(self._default, None, "malformed")
        handled = decision.route.name in self._handlers
        return Command(update={"decision": decision}, goto="handle" if handled else "answer")

    async def _answer_node(self, state: _State, runtime: Runtime[_Run]) -> _State:
        run = runtime.context
        instructions = join_texts(run.instructions, state["decision"].route.instructions)
        answered = await self._answer(run, state["messages"], instructions=instructions, deliver=True)
        result = PatternResult(
            content=answered.text,
            finish_reason=answered.finish_reason,
            messages=tuple(answered.new),
            response_id=answered.response_id,
        )
        return {"result": result}

    async def _handle_node(self, state: _State, runtime: Runtime[_Run]) -> _State:
        run = runtime.context
        value = await answer_with(
            self._handlers[state["decision"].route.name],
            state["messages"],
            run.context,
            self.delivery,
            conversation_id=run.conversation_id,
        )
        return {"result": as_result(value), "handled": value}

    def _decide(self, said: Classification) -> _Decision:
        route = self._routes.get(_plain(said.route))
        if route is None:
            return _Decision(self._default, said, "unknown_label")
        if route is not self._default and said.confidence < self.config.min_confidence:
            return _Decision(self._default, said, "low_confidence")
        return _Decision(route, said)

    def _check_handlers(self, handlers: Any) -> dict[str, Any]:
        """Check the handlers, and return them by the names of their routes as the config has them."""
        if not isinstance(handlers, Mapping):
            raise ConfigurationError(f"handlers must be a dict by route name, not a {type(handlers).__name__!r}")
        checked: dict[str, Any] = {}
        for name, handler in handlers.items():
            route = self._routes.get(_plain(name))
            if route is None:
                known = ", ".join(each.name for each in self._routes.values())
                raise ConfigurationError(f"handlers: there is no route {name!r}; the routes are: {known}")
            checked[route.name] = as_delegate(f"handlers[{name!r}]", handler)
        return checked


def _shape(routes: Sequence[Route]) -> Shape[Classification]:
    """Make the shape of a classification, with the routes' names as the only labels."""
    schema = msgspec.json.schema(Classification)["$defs"][Classification.__name__]
    properties = {**schema["properties"], "route": {"type": "string", "enum": [route.name for route in routes]}}
    return shape_of(Classification, "classification", schema={**schema, "properties": properties})


def _describe(route: Route) -> str:
    return f"- {route.name}: {route.description}" if route.description else f"- {route.name}"


def _plain(name: str) -> str:
    """Write a route's name as it is compared."""
    return " ".join(name.split()).casefold()


def _routed(decision: _Decision, result: PatternResult, run: _Run, handled: Any) -> RoutedResult:
    said = decision.said
    return RoutedResult(
        content=result.content,
        finish_reason=result.finish_reason,
        messages=result.messages,
        turns=len(run.answers) + result.turns,
        function_calls=(*run.results, *result.function_calls),
        response_id=result.response_id,
        conversation_id=result.conversation_id or run.conversation_id,
        route=decision.route.name,
        label=said.route if said else None,
        confidence=said.confidence if said else None,
        reason=said.reason if said else None,
        fell_back=decision.fell_back,
        handled=handled,
    )
