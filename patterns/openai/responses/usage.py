"""What the Responses API says it answered and used, in the engine's words."""

from typing import TYPE_CHECKING, Any, cast

from runmeter.engine import ModelCall, Provenance, Usage

from ...errors import ResponseFailed

if TYPE_CHECKING:
    from openai.types.responses import Response


def completed(answer: Any) -> "Response":
    """Put a list wherever a server has sent null or a string in its place: the client does not check.

    Raises:
        ResponseFailed: it is not a response; the message is the server's, if it has one.
    """
    if getattr(answer, "output", None) is None and getattr(answer, "status", None) is None:
        error = getattr(answer, "error", None)
        message = error if isinstance(error, str) else getattr(error, "message", None)
        raise ResponseFailed(
            getattr(error, "code", None) or "invalid_response",
            message or "the server's answer is not a response of the Responses API",
        )
    answer.output = answer.output or []
    for item in answer.output:
        if item.type == "message":
            item.content = _parts(item.content)
    return cast("Response", answer)


def _parts(content: Any) -> list[Any]:
    """The parts of a message; some servers send its text as a string."""
    if not isinstance(content, str):
        return content or []
    from openai.types.responses import ResponseOutputText  # slow, but loaded by now

    return [ResponseOutputText(type="output_text", text=content, annotations=[])]


def usage_of(response: "Response") -> Usage | None:
    """Read the usage of an answer; None if the API reported none, or not both of its totals.

    Every part may be missing: the client does not check what servers send.
    """
    usage = response.usage
    input_tokens, output_tokens = count_of(usage, "input_tokens"), count_of(usage, "output_tokens")
    if input_tokens is None or output_tokens is None:
        return None
    read, written = getattr(usage, "input_tokens_details", None), getattr(usage, "output_tokens_details", None)
    lifetimes = getattr(read, "cache_write_tokens_details", None)
    for_30m, for_12h = _count(lifetimes, "ttl_30m_tokens"), _count(lifetimes, "ttl_12h_tokens")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        # Parts of a total are no more than it.
        cache_read_tokens=min(_count(read, "cached_tokens"), input_tokens),
        cache_write_tokens=min(max(_count(read, "cache_write_tokens"), for_30m + for_12h), input_tokens),
        cache_write_12h_tokens=min(for_12h, input_tokens),
        reasoning_tokens=min(_count(written, "reasoning_tokens"), output_tokens),
        web_searches=_web_searches(response),
        file_searches=sum(item.type == "file_search_call" for item in response.output),
    )


def record_response(call: ModelCall, response: "Response") -> None:
    """Record on a call what an answer says of itself, its usage included if it reports one."""
    call.response_id = response.id
    call.response_model = response.model
    call.service_tier = response.service_tier
    call.finish_reasons = (finish_reason_of(response),)
    record_usage(call, response)


def record_usage(call: ModelCall, response: "Response") -> None:
    """Record on a call the usage that an answer reports, if it does.

    Images that the model had another model generate are tokens of that one, which the API does not name: then what is
    reported is not all, but a lower bound of what was used.
    """
    usage = usage_of(response)
    if usage is None:
        return
    images = getattr(getattr(response, "tool_usage", None), "image_gen", None)
    others = _count(images, "input_tokens") or _count(images, "output_tokens")
    call.record(
        usage,
        Provenance.PARTIAL if others else Provenance.REPORTED,
        response_model=response.model,
        service_tier=response.service_tier,
    )


def finish_reason_of(response: "Response") -> str:
    """Tell why an answer ended, in words of Chat Completions: `stop`, `tool_calls`, `length`, `content_filter` …"""
    if response.status == "incomplete":
        reason = getattr(response.incomplete_details, "reason", None) or "length"
        return "length" if reason == "max_output_tokens" else str(reason)
    if response.status != "completed":
        return "error"
    return "tool_calls" if any(item.type == "function_call" for item in response.output) else "stop"


def count_of(part: Any, name: str) -> int | None:
    """Read a number that a server is to send; None if it sent something else in its place, or nothing."""
    count = getattr(part, name, None)
    return count if isinstance(count, int) and count >= 0 else None


def _count(part: Any, name: str) -> int:
    return count_of(part, name) or 0


def _web_searches(response: "Response") -> int:
    """Count the billable searches, as the API did; where it did not, the searches it made."""
    counted = getattr(getattr(response, "tool_usage", None), "web_search", None)
    if counted is not None:
        return _count(counted, "num_requests")
    return sum(
        item.type == "web_search_call" and getattr(item.action, "type", None) == "search" for item in response.output
    )
