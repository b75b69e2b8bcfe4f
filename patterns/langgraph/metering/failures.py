"""Answers that came, were paid for, and that a client then made an error of: one it cannot parse, for example."""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from .usage import Answer, finish_reason_of, read_answer

_DETAILS = {"cached_tokens": "cache_read", "cache_write_tokens": "cache_creation", "reasoning_tokens": "reasoning"}
"""From OpenAI's names to LangChain's, where these differ."""


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
    message = AIMessage("", response_metadata=metadata)
    message.usage_metadata = _as_langchain(body.get("usage"))
    reason = finish_reason_of(message)
    answer = read_answer(LLMResult(generations=[[ChatGeneration(message=message)]]))
    return Answer(answer.usage, metadata, (reason,) if reason else ())


def _as_langchain(usage: Any) -> Any:
    if not isinstance(usage, Mapping):
        return None
    read = usage.get("input_tokens", usage.get("prompt_tokens"))
    written = usage.get("output_tokens", usage.get("completion_tokens"))
    return {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": usage.get("total_tokens"),
        "input_token_details": _details(usage.get("input_tokens_details") or usage.get("prompt_tokens_details")),
        "output_token_details": _details(usage.get("output_tokens_details") or usage.get("completion_tokens_details")),
    }


def _details(details: Any) -> dict[str, Any]:
    if not isinstance(details, Mapping):
        return {}
    return {
        _DETAILS.get(name, name.removesuffix("_tokens")): count for name, count in details.items() if count is not None
    }
