"""The Responses API: create, retrieve, delete, count input tokens.

Source of the parameters: openai 3.54.0, `types/responses/response_create_params.py` (2026-11).
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ..errors import ApiError, convert, decode
from ..faults import Fault, FaultKind
from ..model.billing import Generation, prompt_tokens
from ..model.catalogue import find_model
from ..model.prompt import (
    Choice,
    Effort,
    Item,
    Metadata,
    Prompt,
    PromptTool,
    Temperature,
    TopP,
    allowed_name,
    check_calls,
    check_sampling,
    choose,
    served_tier,
)
from ..model.schemas import check_schema
from ..objects.conversation import Conversation, ConversationTurn
from ..objects.input_items import read_items, store_items
from ..objects.response import (
    ResponseObject,
    as_input,
    as_told,
    cancelled,
    failed,
    finished,
    output_items,
    store_output,
)
from ..objects.response_stream import error_event, response_events
from ..service import Answer, Call, Chunk, Plain, Service, StoredResponse
from .conversations import find_conversation

LEAST_OUTPUT = 16
"""`max_output_tokens` cannot be less."""


class Reasoning(msgspec.Struct, omit_defaults=True):
    """Settings of how the model is to think."""

    effort: Effort | None = None
    summary: str | None = None


class ConversationReference(msgspec.Struct, forbid_unknown_fields=True):
    """A reference to a conversation by its id."""

    id: str


class PromptParams(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Parameters that make the prompt. What has no meaning here is taken, as `Any`, and ignored."""

    model: str
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationReference | None = None
    reasoning: Reasoning | None = None
    text: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    prompt_cache_options: dict[str, Any] | None = None
    truncation: str | None = None

    @property
    def conversation_id(self) -> str | None:
        """The conversation the request belongs to, whichever way it names it."""
        return self.conversation.id if isinstance(self.conversation, ConversationReference) else self.conversation


class CountInputTokens(PromptParams, kw_only=True):
    """The body of POST /responses/input_tokens."""

    personality: Any = None


class CreateResponse(PromptParams, kw_only=True):
    """The body of POST /responses."""

    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    max_tool_calls: int | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    prompt: dict[str, Any] | None = None
    access_programs: Any = None
    background_options: Any = None
    context_management: Any = None
    image: Any = None
    include: Any = None
    moderation: Any = None
    prompt_cache_retention: Any = None
    stream_options: Any = None
    top_logprobs: Any = None


def create(service: Service, call: Call) -> Answer:
    """Answer POST /responses with a response."""
    request = decode(call.body, CreateResponse)
    turn = _begin_turn(service, request, call)
    prompt = _prompt(service, request)
    _check(request, prompt)
    pending = PendingResponse(service, request, prompt, turn, call)
    return pending if request.stream else pending.plain()


def retrieve(service: Service, call: Call) -> Answer:
    """Answer GET /responses/{id} with the response."""
    stored = service.responses.get(call.id)
    if stored is None:
        raise ApiError(404, f"Response with id '{call.id}' not found.")
    return stored.body


def delete(service: Service, call: Call) -> Answer:
    """Answer DELETE /responses/{id}, and forget the response."""
    if not service.responses.delete(call.id):
        raise ApiError(404, f"Response with id '{call.id}' not found.")
    return msgspec.json.encode({"id": call.id, "object": "response.deleted", "deleted": True})


def count_input_tokens(service: Service, call: Call) -> Answer:
    """Answer POST /responses/input_tokens with what the same request would be billed for its input."""
    prompt = _prompt(service, decode(call.body, CountInputTokens))
    tokens = len(prompt_tokens(prompt))
    return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens})


class PendingResponse:
    """A response from its draft to its end, which decides what is billed and what is kept."""

    def __init__(
        self,
        service: Service,
        request: CreateResponse,
        prompt: Prompt,
        turn: ConversationTurn | None,
        call: Call,
    ) -> None:
        self._service = service
        self._prompt = prompt
        self._turn = turn
        self._account = call.account
        self._fault = call.fault
        self._store = request.store is not False
        self.draft = _draft(service, request, prompt, call.fault)
        self._generation: Generation = service.generate(prompt, call.fault)
        summarise = request.reasoning is not None and request.reasoning.summary is not None
        output = output_items(self._generation, prompt.model, service.new_id, summarise=summarise)
        self.final = finished(self.draft, output, self._generation)
        self._keep(self.draft)

    def plain(self) -> Plain:
        """Write the response at once, settled now. Its conversation has it, and is free again, when it is sent."""
        if self._has_fault("failed"):
            self._keep(failed(self.draft))
            return Plain(msgspec.json.encode(failed(self.draft)), self._release_turn)
        self._settle()
        return Plain(msgspec.json.encode(as_told(self.final, self._fault)), self._complete_turn)

    @property
    def chunks(self) -> Sequence[Chunk]:
        """The events of the whole stream."""
        return response_events(self.draft, self.final, self._generation, self._fault)

    def error(self, fault: Fault, position: int) -> bytes:
        """Write the event that reports a fault."""
        return error_event(fault, position, self.draft)

    def completed(self) -> None:
        """Bill and keep all that was generated."""
        self._settle()
        self._complete_turn()

    def abandoned(self, tokens: int) -> None:
        """Bill what was generated until the client left."""
        usage = self._generation.usage_after(tokens)
        self._account.bill(self._prompt.model.id, usage)
        self._keep(cancelled(self.draft, usage))
        if self._has_fault("orphaned_calls"):
            self._complete_turn()
        else:
            self._release_turn()

    def failed(self) -> None:
        """Bill nothing, as the service failed."""
        self._keep(failed(self.draft))
        self._release_turn()

    def _has_fault(self, kind: FaultKind) -> bool:
        return self._fault is not None and self._fault.kind == kind

    def _settle(self) -> None:
        usage, calls = self._generation.usage, self._generation.tool_calls
        self._account.bill(self._prompt.model.id, usage, tool_calls=calls)
        self._keep(self.final, [*self._prompt.items, *map(as_input, self.final.output)])

    def _complete_turn(self) -> None:
        if self._turn is not None:
            self._turn.complete(store_output(self.final.output))

    def _release_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()

    def _keep(self, response: ResponseObject, items: Sequence[Item] | None = None) -> None:
        if self._store:
            stored = StoredResponse(msgspec.json.encode(response), items)
            self._service.responses.put(response.id, stored)


def _begin_turn(service: Service, request: CreateResponse, call: Call) -> ConversationTurn | None:
    """Take the conversation, if the request names one, until its response has ended."""
    conversation = _conversation(service, request)
    if conversation is None:
        return None
    turn = conversation.begin(store_items(request.input, "input", service.new_id))
    call.ending.callback(turn.release)  # its usual end is the response's: this is for whatever else happens
    return turn


def _conversation(service: Service, request: PromptParams) -> Conversation | None:
    if request.conversation_id is None:
        return None
    if request.previous_response_id is not None:
        message = (
            "Mutually exclusive parameters. Ensure you are only providing one of: "
            "'previous_response_id' or 'conversation'."
        )
        raise ApiError(400, message, code="mutually_exclusive_parameters")
    return find_conversation(service, request.conversation_id)


def _prompt(service: Service, request: PromptParams) -> Prompt:
    """Put together what the model is given: earlier items first, then the new ones."""
    model = find_model(request.model)
    items = [*_history(service, request), *read_items(request.input)]
    check_calls(items)
    tools = [_tool(tool, i) for i, tool in enumerate(request.tools or ()) if tool.get("type") == "function"]
    choice, allowed = _choice(tools, request.tool_choice)
    return Prompt(
        model=model,
        items=items,
        instructions=request.instructions,
        tools=tools,
        choice=choice,
        allowed=allowed,
        parallel=request.parallel_tool_calls is not False,
        effort=request.reasoning.effort if request.reasoning else None,
        json_schema=_json_schema(request.text),
        max_output_tokens=request.max_output_tokens,
        cache_12h=(request.prompt_cache_options or {}).get("ttl") == "12h",
    )


def _history(service: Service, request: PromptParams) -> Sequence[Item]:
    """Find what was said before: all items of a conversation, or of an earlier response, its input and its output."""
    conversation = _conversation(service, request)
    if conversation is not None:
        return conversation.history
    response_id = request.previous_response_id
    if response_id is None:
        return ()
    stored = service.responses.get(response_id)
    if stored is None or stored.items is None:
        message = f"Previous response with id '{response_id}' not found."
        raise ApiError(400, message, param="previous_response_id", code="previous_response_not_found")
    return stored.items


def _tool(given: dict[str, Any], index: int) -> PromptTool:
    present = {key: value for key, value in given.items() if value is not None}  # null is as good as nothing
    tool = convert(present, PromptTool, f"tools[{index}]")
    check_schema(
        tool.parameters, f"function '{tool.name}'", f"tools[{index}].parameters", "invalid_function_parameters"
    )
    return tool


def _choice(tools: Sequence[PromptTool], choice: str | dict[str, Any] | None) -> tuple[Choice, Sequence[PromptTool]]:
    match choice:
        case {"type": "function", "name": str(name)}:
            return choose(tools, "required", [name])
        case {"type": "allowed_tools", "mode": str(mode), "tools": list(allowed)}:
            return choose(tools, mode, [allowed_name(tool) for tool in allowed])
        case {"type": "function" | "allowed_tools"}:
            raise ApiError(400, "Invalid value for 'tool_choice'.", param="tool_choice", code="invalid_value")
        case str() | None:
            return choose(tools, choice)
        case _:  # a built-in tool, which the simulator does not run
            return choose(tools, "auto")


def _json_schema(text: dict[str, Any] | None) -> dict[str, Any] | None:
    match text:
        case {"format": {"type": "json_schema", "schema": dict(schema)}}:
            check_schema(schema, "response_format", "text.format.schema", "invalid_json_schema")
            return schema
        case {"format": {"type": "json_object"}}:
            return {"type": "object", "properties": {"answer": {"type": "string"}}}
        case _:
            return None


def _check(request: CreateResponse, prompt: Prompt) -> None:
    """Refuse what the real service refuses, and what this one cannot do."""
    if request.prompt is not None:
        raise ApiError(400, "This simulator has no prompt templates.", param="prompt")
    if not prompt.items:
        message = (
            'Missing required parameter: One of "input" or "previous_response_id" or \'prompt\' or '
            "'conversation_id' must be provided."
        )
        raise ApiError(400, message, code="missing_required_parameter")
    if request.background:
        raise ApiError(400, "This simulator does not run responses in the background.", param="background")
    if request.max_output_tokens is not None and request.max_output_tokens < LEAST_OUTPUT:
        message = (
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {LEAST_OUTPUT}, "
            f"but got {request.max_output_tokens} instead."
        )
        raise ApiError(400, message, param="max_output_tokens", code="integer_below_min_value")
    sampling = {"temperature": request.temperature, "top_p": request.top_p}
    check_sampling(prompt.model, prompt.effort, sampling, chat=False)


def _draft(service: Service, request: CreateResponse, prompt: Prompt, fault: Fault | None) -> ResponseObject:
    """Make the response before the model has begun. What the request leaves out has the API's default."""
    reasoning = request.reasoning or Reasoning()
    effort = reasoning.effort or prompt.model.effort
    return ResponseObject(
        id=service.new_id("resp_"),
        created_at=int(service.clock()),
        status="in_progress",
        conversation={"id": request.conversation_id} if request.conversation_id is not None else None,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        metadata=request.metadata or {},
        model=prompt.model.id,
        output=[],
        parallel_tool_calls=prompt.parallel,
        previous_response_id=request.previous_response_id,
        prompt_cache_key=request.prompt_cache_key,
        prompt_cache_options=_cache_options(request),
        reasoning={"effort": effort, "summary": reasoning.summary},
        safety_identifier=request.safety_identifier,
        service_tier=served_tier(request.service_tier, fault),
        store=request.store is not False,
        temperature=1.0 if request.temperature is None else request.temperature,
        text={"format": {"type": "text"}, "verbosity": "medium"} | (request.text or {}),
        tool_choice=request.tool_choice or "auto",
        tools=[{"strict": True, **tool} if tool.get("type") == "function" else tool for tool in request.tools or ()],
        top_p=1.0 if request.top_p is None else request.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
    )


def _cache_options(request: CreateResponse) -> dict[str, Any] | None:
    if request.prompt_cache_options is None:
        return None
    return {"mode": "implicit", "ttl": "30m"} | request.prompt_cache_options
