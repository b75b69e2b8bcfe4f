"""Answers that came, and that a client then made an error of: one it cannot parse, or one that says it failed."""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from ...errors import ResponseFailed
from ...requests.usage import read_usage
from .usage import Answer, finish_reason_of


def is_control_flow(error: BaseException) -> bool:
    """Tell whether an exception is LangGraph's way to interrupt a graph, or to leave it for its parent, and no failure.

    By the name of the class, as a tool may run in a process that has no LangGraph.
    """
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)


def as_failed(error: BaseException) -> ResponseFailed | None:
    """Name the failure that an answer reports of itself, as the patterns on the OpenAI API do; None for other errors.

    langchain-openai makes a plain `ValueError` of it: from an answer that came at once with its error, from a stream
    with no more than a text (1.7.4, `_construct_lc_result_from_responses_api`, `_create_chat_result`,
    `_convert_responses_chunk_to_generation_chunk`). The event itself is where it was raised. What OpenAI's client makes
    of an error event is an `APIError`, which no HTTP status came with (openai 3.54.0, `_streaming.py`).
    """
    said: Any = None
    if type(error) is ValueError:
        event = _failing_event(error)
        said = event or (error.args[0] if error.args else None)
        if (answer := getattr(event, "response", None)) is not None:
            said = _get(answer, "error") or {"code": "response_failed"}
    elif type(error).__name__ == "APIError":
        said = getattr(error, "body", None)
    if not (isinstance(said, Mapping) or hasattr(said, "code")):
        return None
    return ResponseFailed.said(said, "the answer ended with status 'failed'")


def _failing_event(error: BaseException) -> Any:
    """Find the event of a stream that an error was made of: the variable `chunk` of the function that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    event = trace.tb_frame.f_locals.get("chunk") if trace is not None else None
    return event if getattr(event, "type", None) in ("response.failed", "error") else None


def read_failure(error: BaseException, result: Any) -> Answer | None:
    """Read the answer that an error was made of; None if there was none, or it says nothing of its usage.

    LangChain hands over the body of the HTTP response (langchain-core 1.8.0, `_generate_response_from_error`); OpenAI's
    client keeps the answer on `LengthFinishReasonError` (openai 3.54.0).

    Args:
        error: What the request ended in.
        result: What LangChain reports with it.
    """
    completion: Any = getattr(error, "completion", None)
    bodies = [completion.model_dump()] if hasattr(completion, "model_dump") else []
    if (failed := getattr(_failing_event(error), "response", None)) is not None:
        bodies.append(failed if isinstance(failed, Mapping) else failed.model_dump(warnings=False))
    if isinstance(result, LLMResult):
        bodies += [body for choices in result.generations for choice in choices if (body := _body_of(choice))]
    for body in bodies:
        answer = _read_body(body)
        if answer.usage is not None:
            return answer
    return None


def _body_of(choice: Any) -> Any:
    if not isinstance(choice, ChatGeneration):
        return None
    body = choice.message.response_metadata.get("body")
    return body if isinstance(body, Mapping) else None


def _read_body(body: Mapping[str, Any]) -> Answer:
    """Read a body of Chat Completions or of the Responses API, as the message that LangChain would have made of it."""
    choices = body.get("choices") or [{}]
    first: Any = choices[0] if isinstance(choices, list) and isinstance(choices[0], Mapping) else {}
    metadata = {
        "id": body.get("id"),
        "model_name": body.get("model"),
        "service_tier": body.get("service_tier"),
        "finish_reason": first.get("finish_reason"),
        "status": body.get("status"),
        "incomplete_details": body.get("incomplete_details"),
    }
    reason = finish_reason_of(AIMessage("", response_metadata=metadata))
    return Answer(read_usage(body), metadata, (reason,) if reason else ())


def _get(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)
