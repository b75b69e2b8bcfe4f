"""Answers that came, were paid for, and that a client then made an error of: one it cannot parse, for example."""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from ...requests.usage import read_usage
from .usage import Answer, finish_reason_of


def is_control_flow(error: BaseException) -> bool:
    """Tell whether an exception is LangGraph's way to interrupt a graph, or to leave it for its parent, and no failure.

    By the name of the class, as a tool may run in a process that has no LangGraph.
    """
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)


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
