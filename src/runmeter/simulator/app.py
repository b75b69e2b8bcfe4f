"""The HTTP side: which path leads to which endpoint, and what happens between a request and its answer."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .accounts import ADMIN_PREFIX, Bill
from .endpoints import chat, conversations, embeddings, files, organization, responses, vector_stores
from .endpoints import models as catalogue
from .errors import ApiError, not_simulated
from .faults import HEADER, EndpointPath, Fault, server_error
from .http.exchange import Exchange
from .service import Answer, Call, Plain, Service, Stream

logger = logging.getLogger("runmeter")

Handler: TypeAlias = Callable[[Service, Call], Answer]

ENDPOINTS: list[tuple[str, EndpointPath, Handler]] = [
    ("POST", "/responses", responses.create),
    ("POST", "/responses/input_tokens", responses.count_input_tokens),
    ("GET", "/responses/{id}", responses.retrieve),
    ("DELETE", "/responses/{id}", responses.delete),
    ("POST", "/responses/{id}/cancel", responses.cancel),
    ("GET", "/responses/{id}/input_items", responses.list_input_items),
    ("POST", "/conversations", conversations.create),
    ("GET", "/conversations/{id}", conversations.retrieve),
    ("POST", "/conversations/{id}", conversations.update),
    ("DELETE", "/conversations/{id}", conversations.delete),
    ("POST", "/conversations/{id}/items", conversations.create_items),
    ("GET", "/conversations/{id}/items", conversations.list_items),
    ("GET", "/conversations/{id}/items/{item_id}", conversations.retrieve_item),
    ("DELETE", "/conversations/{id}/items/{item_id}", conversations.delete_item),
    ("POST", "/chat/completions", chat.create),
    ("POST", "/embeddings", embeddings.create),
    ("POST", "/files", files.create),
    ("GET", "/files", files.list_uploads),
    ("GET", "/files/{id}", files.retrieve),
    ("DELETE", "/files/{id}", files.delete),
    ("GET", "/files/{id}/content", files.content),
    ("POST", "/vector_stores", vector_stores.create),
    ("GET", "/vector_stores", vector_stores.list_stores),
    ("GET", "/vector_stores/{id}", vector_stores.retrieve),
    ("DELETE", "/vector_stores/{id}", vector_stores.delete),
    ("POST", "/vector_stores/{id}/search", vector_stores.search),
    ("POST", "/vector_stores/{id}/files", vector_stores.add_file),
    ("GET", "/vector_stores/{id}/files", vector_stores.list_files),
    ("GET", "/vector_stores/{id}/files/{file_id}", vector_stores.retrieve_file),
    ("DELETE", "/vector_stores/{id}/files/{file_id}", vector_stores.delete_file),
    ("GET", "/models", catalogue.list_models),
    ("GET", "/models/{id}", catalogue.retrieve),
    ("GET", "/organization/usage/completions", organization.usage_of_completions),
    ("GET", "/organization/usage/embeddings", organization.usage_of_embeddings),
    ("GET", "/organization/costs", organization.costs),
]

NOT_SIMULATED: list[tuple[str, str]] = [
    ("POST", "/responses/compact"),
    ("GET", "/chat/completions"),
    ("GET", "/chat/completions/{id}"),
    ("POST", "/chat/completions/{id}"),
    ("DELETE", "/chat/completions/{id}"),
    ("GET", "/chat/completions/{id}/messages"),
    ("POST", "/vector_stores/{id}"),
    ("POST", "/vector_stores/{id}/files/{file_id}"),
    ("GET", "/vector_stores/{id}/files/{file_id}/content"),
    ("POST", "/vector_stores/{id}/file_batches"),
    ("GET", "/vector_stores/{id}/file_batches/{batch_id}"),
    ("POST", "/vector_stores/{id}/file_batches/{batch_id}/cancel"),
    ("GET", "/vector_stores/{id}/file_batches/{batch_id}/files"),
    ("DELETE", "/models/{id}"),
]
"""What the API has beside the endpoints of the same resources."""
NOT_SIMULATED_RESOURCES = (
    *("assistants", "audio", "batches", "completions", "containers", "content_provenance_checks", "decisions", "evals"),
    *("fine_tuning", "images", "live", "moderations", "organization", "realtime", "safety", "skills", "threads"),
    *("uploads", "videos"),
)
"""What the API has of which nothing is simulated. Source of both: openai 3.54.0, `resources/` (2026-11)."""

_BREAKS_STREAM = frozenset(
    {"stream_end", "stream_cut", "orphaned_calls", "stream_error", "stream_error_nested", "failed"}
)


def make_app(service: Service) -> Starlette:
    """Make the whole service an ASGI app."""
    routes = [
        Route(f"/v1{path}", Endpoint(service, method, path, handler), methods=[method])
        for method, path, handler in ENDPOINTS
    ]
    routes += [Route(f"/v1{path}", _not_simulated, methods=[method]) for method, path in NOT_SIMULATED]
    every = ["GET", "POST", "DELETE"]
    for name in NOT_SIMULATED_RESOURCES:
        routes += [Route(f"/v1/{name}{rest}", _not_simulated, methods=every) for rest in ("", "/{rest:path}")]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_url})


async def _not_simulated(request: Request) -> Response:
    refusal = not_simulated(f"{request.method} {request.url.path}")
    return Response(refusal.body(), refusal.status, media_type="application/json")


async def _no_such_url(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    refusal = ApiError(status, f"Invalid URL ({request.method} {request.url.path})")
    return Response(refusal.body(), status, media_type="application/json")


class Endpoint:
    """An ASGI app for one method of one path."""

    def __init__(self, service: Service, method: str, path: EndpointPath, handler: Handler) -> None:
        self._service = service
        self._path = path
        self._name = f"{method} {path}"
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of the endpoint."""
        exchange = Exchange(scope, receive, send, self._service.new_id("req_"))
        account = self._service.accounts.of(exchange.api_key, exchange.header("openai-project"))
        account.request(self._name)
        try:
            await self._serve(exchange, account)
        except ApiError as error:
            await exchange.send(error.body(), error.status, error.headers)
        except ClientDisconnect:
            pass  # it left before its request was complete
        except Exception as error:  # a script that raised, or a mistake of ours: a 500, as from any server
            logger.exception("the simulator failed on %s", self._name)
            failure = ApiError(500, f"The simulator failed: {error!r}", kind="server_error")
            await exchange.send(failure.body(), failure.status)
        finally:
            exchange.close()

    async def _serve(self, exchange: Exchange, account: Bill) -> None:
        body = await exchange.body()
        _authorise(exchange, self._path)
        latency, fault = self._take_faults(exchange, body)
        if latency or fault:
            account.fault()
        if fault is not None and (error := fault.error(self._path)):
            raise error
        if fault is not None and fault.kind == "drop":
            await exchange.cut()
            return
        with ExitStack() as ending:
            answer = self._handler(self._service, _call(exchange, body, fault, account, ending))
            # The answer is made by now, and billed: it is billed all the same if the client does not wait for it.
            await exchange.pause(latency.seconds if latency else 0)
            if fault is not None and fault.kind == "billed_error":
                _bill_all(answer)
                raise server_error()
            if isinstance(answer, files.Content):
                await exchange.send(answer, headers={"content-type": "application/octet-stream"})
            elif isinstance(answer, bytes):
                await exchange.send(answer)
            elif isinstance(answer, Plain):
                if not exchange.gone:
                    answer.delivered()
                await exchange.send(answer.body)
            else:
                await _send_stream(exchange, answer, fault, latency.between_chunks if latency else 0)

    def _take_faults(self, exchange: Exchange, body: bytes) -> tuple[Fault | None, Fault | None]:
        header = exchange.header(HEADER)
        traits = _traits(body)
        latency, fault = self._service.faults.take(
            self._path, stream=bool(traits.stream), conversation=traits.conversation is not None, header=header
        )
        return latency, fault


def _call(exchange: Exchange, body: bytes, fault: Fault | None, account: Bill, ending: ExitStack) -> Call:
    first, second = exchange.path_ids
    return Call(
        body=body,
        id=first,
        fault=fault,
        account=account,
        part_id=second,
        query=exchange.query,
        lists=exchange.lists,
        content_type=exchange.header("content-type") or "",
        ending=ending,
    )


def _bill_all(answer: Answer) -> None:
    """Settle an answer that was made, and that nobody gets. One in JSON is billed already."""
    if not isinstance(answer, bytes | Plain):
        answer.abandoned(sum(chunk.tokens for chunk in answer.chunks))


async def _send_stream(exchange: Exchange, stream: Stream, fault: Fault | None, between_chunks: float) -> None:
    """Send a stream's events, as far as a fault lets them through. The bill is settled before the client can know."""
    chunks = stream.chunks
    breaks = fault if fault is not None and fault.kind in _BREAKS_STREAM else None
    passing = chunks if breaks is None else chunks[: min(breaks.after_events, len(chunks) - 1)]
    sent = 0
    await exchange.start_events()
    for position, chunk in enumerate(passing):
        await exchange.pause(between_chunks)
        if exchange.gone:
            stream.abandoned(sent)
            return
        if position == len(chunks) - 1:
            stream.completed()
        await exchange.send_event(chunk.data)
        sent += chunk.tokens
    if breaks is not None:
        await _break_off(exchange, stream, breaks, len(passing), sent)
    else:
        await exchange.end_events()


async def _break_off(exchange: Exchange, stream: Stream, fault: Fault, position: int, sent: int) -> None:
    match fault.kind:
        case "stream_cut" | "orphaned_calls":
            stream.abandoned(sent)
            await exchange.cut()
        case "stream_end":
            stream.abandoned(sent)
            await exchange.end_events()
        case _:
            stream.failed()
            await exchange.send_event(stream.error(fault, position))
            await exchange.end_events()


def _authorise(exchange: Exchange, path: EndpointPath) -> None:
    """Check that there is a key, any of the right kind: an admin key for the organization's figures, else another.

    The words for one of the wrong kind: community.openai.com/t/1345041 (2025).
    """
    if not exchange.api_key:
        message = (
            "You didn't provide an API key. You need to provide your API key in an Authorization header using "
            "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
        raise ApiError(401, message, code="invalid_api_key")
    about_organization = path.startswith("/organization/")
    if exchange.api_key.startswith(ADMIN_PREFIX) is not about_organization:
        scope = "api.usage.read" if about_organization else "model.request"
        message = (
            f"You have insufficient permissions for this operation. Missing scopes: {scope}. Check that you have the "
            "correct role in your organization, and if you're using a restricted API key, that it has the necessary "
            "scopes."
        )
        raise ApiError(401, message)


class _Traits(msgspec.Struct):
    """The traits of a request that decide which faults make sense for it."""

    stream: bool | None = None
    conversation: Any = None


def _traits(body: bytes) -> _Traits:
    """Read whether a body asks for a stream, and names a conversation. Whether it is well-formed is seen later."""
    try:
        return msgspec.json.decode(body, type=_Traits)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Traits()
