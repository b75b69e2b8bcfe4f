"""The Responses API: create, retrieve, delete, cancel, list input items, count input tokens.

Source of the parameters: openai 3.54.0, `types/responses/response_create_params.py` (2026-11).
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from runmeter.engine import Usage

from ..accounts import BilledRequest
from ..errors import ApiError, decode, not_simulated
from ..faults import Fault, FaultKind
from ..model.billing import Generation
from ..model.catalogue import find_model
from ..model.limits import check_output_limit, fitted
from ..model.prompt import Item, Prompt, check_calls, check_sampling, served_tier
from ..objects.conversation import Conversation, ConversationTurn, StoredItem
from ..objects.input_items import store_items
from ..objects.response import (
    ResponseObject,
    as_told,
    cancelled,
    failed,
    finished,
    output_items,
    store_output,
)
from ..objects.response_stream import error_event, response_events
from ..requests.response_params import (
    CountInputTokens,
    CreateResponse,
    PromptParams,
    Reasoning,
    check_response_params,
)
from ..requests.text_format import text_schema
from ..requests.tools import response_choice, response_tools
from ..service import Answer, Call, Chunk, Plain, Service, StoredResponse
from .conversations import find_conversation, item_page


def create(service: Service, call: Call) -> Answer:
    """Answer POST /responses with a response."""
    request = decode(call.body, CreateResponse)
    check_response_params(request)
    given = store_items(request.input, "input", service.new_id, service.find_item)
    turn = _begin_turn(service, request, given, call)
    prompt = _prompt(service, request, given)
    _check(request, prompt)
    pending = PendingResponse(service, request, prompt, given, turn, call)
    return pending if request.stream else pending.plain()


def retrieve(service: Service, call: Call) -> Answer:
    """Answer GET /responses/{id} with the response."""
    if call.query.get("stream") == "true":
        raise not_simulated("a stream of a response that was made before", "stream")
    return _find(service, call.id).body


def delete(service: Service, call: Call) -> Answer:
    """Answer DELETE /responses/{id}, and forget the response."""
    _find(service, call.id)
    service.responses.delete(call.id)
    return msgspec.json.encode({"id": call.id, "object": "response.deleted", "deleted": True})


def cancel(service: Service, call: Call) -> Answer:
    """Answer POST /responses/{id}/cancel: with a refusal, as no response runs in the background."""
    _find(service, call.id)
    # Its words: vllm-project/vllm#57999; that it is a 400: sgl-project/sglang#38002 (both 2026).
    raise ApiError(400, "Cannot cancel a synchronous response.")


def list_input_items(service: Service, call: Call) -> Answer:
    """Answer GET /responses/{id}/input_items with a page of the items that its request had."""
    return item_page(_find(service, call.id).given, call)


def count_input_tokens(service: Service, call: Call) -> Answer:
    """Answer POST /responses/input_tokens with what the same request would be billed for its input."""
    request = decode(call.body, CountInputTokens)
    given = store_items(request.input, "input", service.new_id, service.find_item)
    _, tokens = fitted(_prompt(service, request, given))
    return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": len(tokens)})


class PendingResponse:
    """A response from its draft to its end, which decides what is billed and what is kept."""

    def __init__(
        self,
        service: Service,
        request: CreateResponse,
        prompt: Prompt,
        given: Sequence[StoredItem],
        turn: ConversationTurn | None,
        call: Call,
    ) -> None:
        self._service = service
        self._prompt = prompt
        self._given = given
        self._turn = turn
        self._account = call.account
        self._fault = call.fault
        self._store = request.store is not False
        self.draft = _draft(service, request, prompt, call.fault)
        self._generation: Generation = service.generate(prompt, call.fault)
        summarise = request.reasoning is not None and request.reasoning.summarises
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
        self._bill(usage)
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
        self._bill(self._generation.usage, tool_calls=self._generation.tool_calls)
        output = store_output(self.final.output)
        self._keep(self.final, [*self._prompt.items, *(stored.item for stored in output)])
        if self._store:
            self._service.keep_items([*self._given, *output])
            self._service.thoughts.keep(output)

    def _bill(self, usage: Usage, *, tool_calls: int = 0) -> None:
        draft = self.draft
        request = BilledRequest("completions", draft.model, usage, draft.service_tier, draft.created_at)
        self._account.bill(request, self._fault, tool_calls=tool_calls)

    def _complete_turn(self) -> None:
        if self._turn is not None:
            output = store_output(self.final.output)
            self._turn.complete(output)
            self._service.keep_items([*self._given, *output])

    def _release_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()

    def _keep(self, response: ResponseObject, items: Sequence[Item] | None = None) -> None:
        if self._store:
            stored = StoredResponse(msgspec.json.encode(response), self._given, items)
            self._service.responses.put(response.id, stored)


def _find(service: Service, response_id: str) -> StoredResponse:
    if (stored := service.responses.get(response_id)) is None:
        raise ApiError(404, f"Response with id '{response_id}' not found.")
    return stored


def _begin_turn(
    service: Service, request: CreateResponse, given: Sequence[StoredItem], call: Call
) -> ConversationTurn | None:
    """Take the conversation, if the request names one, until its response has ended."""
    conversation = _conversation(service, request)
    if conversation is None:
        return None
    turn = conversation.begin(given)
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


def _prompt(service: Service, request: PromptParams, given: Sequence[StoredItem]) -> Prompt:
    """Put together what the model is given: earlier items first, then the new ones."""
    history = _history(service, request)
    if not history:  # where there is one, what was thought may be in it
        service.thoughts.check(given)
    items = [*history, *(stored.item for stored in given)]
    check_calls(items)
    tools = response_tools(request.tools or ())
    choice, allowed = response_choice(tools, request.tool_choice, request.tools or ())
    options = request.prompt_cache_options
    return Prompt(
        model=find_model(request.model),
        items=items,
        instructions=request.instructions,
        tools=tools,
        choice=choice,
        allowed=allowed,
        parallel=request.parallel_tool_calls is not False,
        effort=request.reasoning.effort if request.reasoning else None,
        json_schema=text_schema(request.text, items, request.instructions),
        max_output_tokens=request.max_output_tokens,
        cache_12h=options is not None and options.ttl == "12h",
        truncates=request.truncation == "auto",
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


def _check(request: CreateResponse, prompt: Prompt) -> None:
    """Refuse an empty prompt, and what this model does not take."""
    if not prompt.items:
        message = (
            'Missing required parameter: One of "input" or "previous_response_id" or \'prompt\' or '
            "'conversation_id' must be provided."
        )
        raise ApiError(400, message, code="missing_required_parameter")
    check_output_limit(prompt.model, request.max_output_tokens, "max_output_tokens", chat=False)
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
        reasoning={"effort": effort, "summary": reasoning.summary or reasoning.generate_summary},
        safety_identifier=request.safety_identifier,
        service_tier=served_tier(request.service_tier, fault),
        store=request.store is not False,
        temperature=1.0 if request.temperature is None else request.temperature,
        text={"format": {"type": "text"}, "verbosity": "medium"} | _present(request.text),
        tool_choice=request.tool_choice or "auto",
        tools=[{"strict": True, **tool} if tool.get("type") == "function" else tool for tool in request.tools or ()],
        top_p=1.0 if request.top_p is None else request.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
    )


def _cache_options(request: CreateResponse) -> dict[str, Any] | None:
    if request.prompt_cache_options is None:
        return None
    return {"mode": "implicit", "ttl": "30m"} | _present(request.prompt_cache_options)


def _present(params: msgspec.Struct | None) -> dict[str, Any]:
    """Write parameters as they came, those that are null left out."""
    return {key: value for key, value in msgspec.to_builtins(params or {}).items() if value is not None}
