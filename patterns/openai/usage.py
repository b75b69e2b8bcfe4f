"""What the Responses API says it used, in the engine's words."""

from typing import TYPE_CHECKING, Any

from runmeter.engine import ModelCall, Usage

if TYPE_CHECKING:
    from openai.types.responses import Response


def usage_of(response: "Response") -> Usage | None:
    """The usage of an answer; None if the API reported none.

    Every part may be missing: the client does not check what servers send.
    """
    usage = response.usage
    if usage is None:
        return None
    read, written = usage.input_tokens_details, usage.output_tokens_details
    lifetimes = getattr(read, "cache_write_tokens_details", None)
    return Usage(
        input_tokens=_count(usage, "input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        cache_read_tokens=_count(read, "cached_tokens"),
        cache_write_tokens=_count(read, "cache_write_tokens"),
        cache_write_12h_tokens=_count(lifetimes, "ttl_12h_tokens"),
        reasoning_tokens=_count(written, "reasoning_tokens"),
        web_searches=_web_searches(response),
        file_searches=sum(item.type == "file_search_call" for item in response.output),
    )


def record_response(call: ModelCall, response: "Response") -> None:
    """Say on a call what an answer says of itself, its usage included if it reports one."""
    call.response_id = response.id
    call.response_model = response.model
    call.service_tier = response.service_tier
    call.finish_reasons = (finish_reason_of(response),)
    usage = usage_of(response)
    if usage is not None:
        call.record(usage)


def finish_reason_of(response: "Response") -> str:
    """Why an answer ended, in the words of Chat Completions: `stop`, `tool_calls`, `length`, `content_filter` …"""
    if response.status == "incomplete":
        reason = getattr(response.incomplete_details, "reason", None) or "length"
        return "length" if reason == "max_output_tokens" else str(reason)
    if response.status != "completed":
        return "error"
    return "tool_calls" if any(item.type == "function_call" for item in response.output) else "stop"


def _count(part: Any, name: str) -> int:
    return getattr(part, name, None) or 0


def _web_searches(response: "Response") -> int:
    """The billable ones, as the API counted them; where it did not, the searches it made."""
    counted = getattr(getattr(response, "tool_usage", None), "web_search", None)
    if counted is not None:
        return _count(counted, "num_requests")
    return sum(
        item.type == "web_search_call" and getattr(item.action, "type", None) == "search" for item in response.output
    )
