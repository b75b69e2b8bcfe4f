"""What the LangGraph patterns share: the event loop they need, and how they ask their model."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import Runnable

from runmeter.engine import ConfigurationError, await_foreign

from ..base import BasePattern
from ..config import OpenAIPatternConfig, PatternConfig
from ..context import instructions_of
from ..errors import AsyncioRequired, MalformedAnswer
from ..openai_client.clients import Clients, load_library
from ..openai_client.models import SunsetGuard, takes_temperature
from ..requests.retry import RetryPolicy
from ..text import valid_text
from ..tools.hosted import hosted_tools
from ..tools.tool import Tool, ToolLike
from ..tools.toolbox import CallAllowance, FunctionRequest, FunctionResult
from .answers import Answered, ask
from .messages import answer_open_calls, calls_of, check_is_heard, to_langchain, valid_message, with_own_call_ids
from .metering.handler import MeteringHandler
from .metering.usage import finish_reason_of
from .structured import Shape, bind_shape, read_shape, unfinished

ToolChoice: TypeAlias = Literal["auto", "any", "none"]
"""Whether the model may call tools, must, or has none."""
T = TypeVar("T")
R = TypeVar("R", bound="GraphRun")


@dataclass
class GraphRun:
    """Runtime context of one run of a graph: it knows the run's state, and is forgotten after it."""

    meter: MeteringHandler
    """The handler of what its nodes ask and call."""
    allowance: CallAllowance
    instructions: str | None = None
    """What the models that answer are told before all messages."""
    answers: list[AIMessage] = field(default_factory=list)
    """All answers of the model, in the order they came."""
    results: list[FunctionResult] = field(default_factory=list)
    """All function calls, in the order they were answered."""


class LangGraphBasePattern(BasePattern):
    """Base class of the patterns on LangGraph. They need asyncio.

    Args:
        config: A `PatternConfig`. An `OpenAIPatternConfig` describes the default model as well.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        model: Any LangChain chat model; by default OpenAI's, over the Responses API.
        retry: When to try a request again; by default what the config says. A model's own retries come on top.

    Raises:
        ConfigurationError: the config is of another kind, or a tool or the model is not one.
    """

    framework = "langgraph"
    config_type: ClassVar[type[PatternConfig]] = OpenAIPatternConfig
    config: OpenAIPatternConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        model: BaseChatModel | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming)
        if model is None:
            import_module("langchain_openai")  # takes its second here, and not in the first run
        else:
            check_model("model", model)
        self._given_model = model
        self._retry = retry or RetryPolicy(max_retries=config.max_retries)
        self._clients = Clients(self.config.api_key, self.config.base_url, config.request_timeout)
        self._definitions: list[dict[str, Any]] = [
            *map(_definition, self.toolbox),
            *map(dict, hosted_tools(self.config.assistant_tools)),
        ]
        self._guard = SunsetGuard(check_shutdown_date=self.config.check_shutdown_date)
        self._default_model: tuple[Any, BaseChatModel] | None = None
        self._bound: dict[tuple[int, Any], tuple[BaseChatModel, Runnable[Any, BaseMessage]]] = {}

    @property
    def model(self) -> BaseChatModel:
        """The pattern's chat model. The default one is made on first use, and anew for another event loop.

        Raises:
            ConfigurationError: there is no API key.
            RetiredModel: the default model's name is of one that has been shut down.
        """
        if self._given_model is not None:
            return self._given_model
        client = self._clients.get()
        default = self._default_model  # once: another thread, with a loop of its own, may replace it meanwhile
        if default is None or default[0] is not client:
            self._guard.check_table(self.config.openai_model, client.base_url.host)
            default = self._default_model = client, _make_model(self.config, client)
            self._bound = {}
        return default[1]

    @classmethod
    def preload(cls) -> None:
        """Import the default model's libraries now; LangGraph came with this class."""
        import langchain_openai  # noqa: F401

        load_library()

    async def aclose(self) -> None:
        """Close the default model's client. A model that was given stays open: it is its owner's."""
        await self._clients.aclose()

    def _compile(self, graph: Any) -> Any:
        """Compile a graph that remembers nothing, not even where another graph that does has it run."""
        return graph.compile(False, name=self.name)

    async def _invoke(self, graph: Any, state: Any, run: GraphRun, *, steps: int, **settings: Any) -> Any:
        """Run a compiled graph to its end; if cancelled, until all that it has begun has ended too.

        Args:
            graph: What to run.
            state: What it begins with.
            run: Its runtime context.
            steps: How many it may take at most. More than the pattern's own limits let it take, so that these come
                first.
            settings: What `ainvoke` takes beyond.
        """
        config: Any = {"recursion_limit": steps, **settings.pop("config", {})}
        return await await_foreign(graph.ainvoke(state, config, context=run, **settings))

    async def _ask(
        self,
        run: GraphRun,
        messages: Sequence[BaseMessage],
        *,
        choice: ToolChoice = "none",
        instructions: str | None = None,
        deliver: bool = False,
        model: BaseChatModel | None = None,
    ) -> AIMessage:
        """Have the model answer once.

        Args:
            run: The run this is part of.
            messages: The conversation.
            choice: Whether it may call tools, must, or has none.
            instructions: What it is told before all messages.
            deliver: Whether this is the run's answer, whose pieces are handed out.
            model: Another model than the pattern's own.

        Raises:
            BudgetExceeded: a budget has no room for the request. It ends the run, whatever a pattern's policy.
            UnboundedRequest: a budget applies, and the request has no known upper bound. So does this.
            ConfigurationError: there is no API key, or the model cannot call the tools that there are.
            RetiredModel: the default model has been shut down.
            ResponseFailed: the answer was not complete in time, or its stream was cut.
            Exception: whatever the model raises, for the last time.
        """
        asked = self._with_tools(model or await self._checked_model(), choice)
        return await self._ask_model(run, asked, messages, instructions, deliver=deliver, is_own=model is None)

    async def _ask_for(
        self,
        run: GraphRun,
        shape: Shape[T],
        messages: Sequence[BaseMessage],
        *,
        instructions: str | None = None,
        model: BaseChatModel | None = None,
    ) -> T:
        """Have the model answer in a given shape. If that cannot be read it is told so, and has one more try.

        Args:
            run: The run this is part of.
            shape: What the answer is to look like.
            messages: The conversation.
            instructions: What it is told before all messages.
            model: Another model than the pattern's own.

        Raises:
            MalformedAnswer: it cannot be read again.
            Exception: as `_ask`.
        """
        chosen, is_own = model or await self._checked_model(), model is None
        try:
            asked = self._bind(chosen, shape, lambda: bind_shape(chosen, shape))
        except NotImplementedError:
            asked, instructions = chosen, join_texts(instructions, shape.request)
        try:
            return await self._ask_once(run, shape, asked, messages, instructions, is_own=is_own)
        except MalformedAnswer as error:
            # Not the answer itself: it may be a call, which would want a tool's output.
            said = HumanMessage(
                f"Your answer could not be read: {error}. Answer again, in the form that was asked for."
            )
        return await self._ask_once(run, shape, asked, [*messages, said], instructions, is_own=is_own)

    async def _ask_once(
        self,
        run: GraphRun,
        shape: Shape[T],
        model: Runnable[Any, BaseMessage],
        messages: Sequence[BaseMessage],
        instructions: str | None,
        *,
        is_own: bool,
    ) -> T:
        try:
            answer = await self._ask_model(run, model, messages, instructions, is_own=is_own)
        except Exception as error:
            why = unfinished(error)
            if why is None:
                raise
            raise MalformedAnswer(shape.name, why, "") from error
        return read_shape(answer, shape)

    async def _answer(
        self,
        run: GraphRun,
        messages: Sequence[BaseMessage],
        *,
        instructions: str | None = None,
        deliver: bool = False,
        model: BaseChatModel | None = None,
    ) -> Answered:
        """Have the model answer with the help of tools: ask, make the calls, tell their results, and so on.

        Args:
            run: The run this is part of.
            messages: The conversation.
            instructions: What it is told before all messages.
            deliver: As in `_ask`.
            model: Another model than the pattern's own.

        Raises:
            Exception: as `_ask`.
        """
        new: list[BaseMessage] = []
        for turn in count(1):
            choice = self._tool_choice(turn, run.allowance)
            said = [*messages, *new]
            answer = await self._ask(run, said, choice=choice, instructions=instructions, deliver=deliver, model=model)
            outputs = await self._make_calls(run, answer)
            new += [answer, *outputs]
            if not outputs or choice == "none" or not is_complete(answer):
                break
        return Answered(answer, new)

    async def _make_calls(self, run: GraphRun, answer: AIMessage) -> list[ToolMessage]:
        """Make the calls an answer asks for: each of them is answered, also those that cannot be made."""
        requests = [FunctionRequest(name, arguments, call_id) for call_id, name, arguments in calls_of(answer)]
        results = await self.toolbox.answer(requests, run.allowance, complete=is_complete(answer))
        run.results += results
        return [
            ToolMessage(
                result.output,
                tool_call_id=result.call_id,
                name=result.name,
                status="error" if result.error_type else "success",
            )
            for result in results
        ]

    def _tool_choice(self, turn: int, allowance: CallAllowance) -> ToolChoice:
        mode = self.config.function_calling_mode
        if mode == "none" or turn == self.config.max_iterations or allowance.left <= 0:
            return "none"
        # If every answer had to call a tool, there would never be a last one.
        return "any" if mode == "required" and turn == 1 else "auto"

    async def _ask_model(
        self,
        run: GraphRun,
        model: Runnable[Any, BaseMessage],
        messages: Sequence[BaseMessage],
        instructions: str | None,
        *,
        is_own: bool,
        deliver: bool = False,
    ) -> AIMessage:
        told = [SystemMessage(valid_text(instructions)), *messages] if instructions else messages
        check_is_heard(model, told)
        delivery = self.delivery if deliver else None
        config = self.config
        answer = await ask(
            model,
            told,
            run.meter,
            self._retry,
            config.request_timeout,
            delivery,
            estimate=config.enable_token_counting,
            ready=self._clients.key_at_hand if is_own and self._given_model is None else nullcontext,
        )
        run.answers.append(answer := with_own_call_ids(valid_message(answer), messages))
        return answer

    async def _checked_model(self) -> BaseChatModel:
        """The pattern's chat model; the default one only if the table, or the API, does not call it shut down."""
        if self._given_model is None:
            await self._guard.check(self.config.openai_model, self._clients.get())
        return self.model

    def _with_tools(self, model: BaseChatModel, choice: ToolChoice) -> Runnable[Any, BaseMessage]:
        if choice == "none" or not self._definitions:
            return model
        settings: dict[str, Any] = {"tool_choice": "any"} if choice == "any" else {}
        if not self.config.parallel_tool_calls:
            settings["parallel_tool_calls"] = False
        try:
            return self._bind(model, choice, lambda: model.bind_tools(self._definitions, **settings))
        except NotImplementedError:
            raise ConfigurationError(f"a {type(model).__name__} cannot call tools: give another, or no tools") from None

    def _bind(
        self, model: BaseChatModel, to: ToolChoice | Shape[Any], bind: Callable[[], Runnable[Any, BaseMessage]]
    ) -> Runnable[Any, BaseMessage]:
        """Bind a model to tools or to a shape, which is done once for each."""
        bound = self._bound.get((id(model), to))
        if bound is None:
            bound = self._bound[id(model), to] = model, bind()  # it is kept, so that no other gets its id
        return bound[1]

    @contextmanager
    def _begin(self, run_type: Callable[..., R], given: Mapping[str, Any] | None, /, **fields: Any) -> Iterator[R]:
        """Begin a run of the graph: what its nodes ask and call is metered until this is left.

        Args:
            run_type: The pattern's own kind of `Run`.
            given: The run's context; its `instructions` take the system prompt's place.
            fields: What the run knows beyond.

        Raises:
            AsyncioRequired: the event loop is not asyncio's.
            ConfigurationError: the instructions are not a string.
        """
        self._check_loop()
        instructions = instructions_of(given or {}, self.config.system_prompt)
        with MeteringHandler() as meter:
            yield run_type(meter, CallAllowance(self.config.max_function_calls), instructions, **fields)

    def _check_loop(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise AsyncioRequired(self.name) from None


def conversation_of(messages: Any) -> list[BaseMessage]:
    """Convert messages in any form to LangChain's, each call among them answered.

    Raises:
        ConfigurationError: one of `messages` is not a message, or there is none.
    """
    return list(answer_open_calls(to_langchain(messages)))


def check_model(what: str, model: object) -> None:
    """Check that a value can be asked as a chat model.

    Raises:
        ConfigurationError: it cannot; `what` says which option it is.
    """
    if isinstance(model, type) or not (hasattr(model, "ainvoke") and hasattr(model, "bind_tools")):
        raise ConfigurationError(f"{what} must be a LangChain chat model, not {model!r}")


def join_texts(*texts: str | None) -> str:
    """Put texts one after the other, those left out that say nothing."""
    return "\n\n".join(filter(None, texts))


def is_complete(answer: AIMessage) -> bool:
    """Tell whether an answer came to its end, so that the calls in it can be relied on."""
    return finish_reason_of(answer) not in ("length", "content_filter")


def _make_model(config: OpenAIPatternConfig, client: Any) -> BaseChatModel:
    """Make OpenAI's model over our own client, whose errors hide the key and which leaves retries to the pattern."""
    from langchain_openai import ChatOpenAI  # only where no other model is given

    effort, hosted_calls = config.reasoning_effort, config.max_tool_calls if config.assistant_tools else None
    settings: Mapping[str, Any] = {
        "model": config.openai_model,
        "temperature": config.openai_temperature if takes_temperature(config.openai_model, effort) else None,
        "max_tokens": config.openai_max_tokens,
        "reasoning": {"effort": effort} if effort else None,
        "service_tier": config.service_tier,
        "store": config.store,
        "model_kwargs": {"max_tool_calls": hosted_calls} if hosted_calls else None,
    }
    return ChatOpenAI(
        **{name: value for name, value in settings.items() if value is not None},
        base_url=str(client.base_url),
        async_client=client.chat.completions,
        root_async_client=client,
        max_retries=0,
        use_responses_api=True,
        stream_usage=True,  # else there is none with a base URL of one's own
    )


def _definition(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": {**function, "strict": True} if tool.strict else function}
