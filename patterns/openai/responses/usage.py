"""What the Responses API says it answered and used, in the engine's words."""

from typing import TYPE_CHECKING, Any, cast

from runmeter.engine import ModelCall

from ...errors import ResponseFailed
from ...requests.finish import finish_reason_of
from ...requests.usage import read_usage

if TYPE_CHECKING:
    from openai.types.responses import Response


def completed(answer: Any, call: ModelCall) -> "Response":
    """Put a list wherever a server has sent null or a string in its place: the client does not check.

    Args:
        answer: What the client made of the server's answer.
        call: Told what was used, if the answer is none: it was used all the same.

    Raises:
        ResponseFailed: it is not a response, or has items that are none; the message is the server's, if it has one.
    """
    if getattr(answer, "output", None) is None and getattr(answer, "status", None) is None:
        error = getattr(answer, "error", None)
        message = error if isinstance(error, str) else getattr(error, "message", None)
        raise ResponseFailed(
            getattr(error, "code", None) or "invalid_response",
            message or "the server's answer is not a response of the Responses API",
        )
    answer.output = answer.output or []
    if not _are_typed(answer.output):
        raise _invalid(answer, call, "output is not a list of items")
    for item in answer.output:
        if item.type == "message":
            item.content = _parts(item.content)
            if not _are_typed(item.content):
                raise _invalid(answer, call, "message is not a list of parts")
    return cast("Response", answer)


def _are_typed(parts: Any) -> bool:
    """Tell whether these are items of an answer, or parts of a message: each says of which type it is."""
    return isinstance(parts, list) and all(isinstance(getattr(part, "type", None), str) for part in parts)


def _invalid(answer: Any, call: ModelCall, why: str) -> ResponseFailed:
    """Make the error of an answer that cannot be read, and record what it used."""
    record_usage(call, answer)
    return ResponseFailed.said(answer.error or {"code": "invalid_response"}, f"the server's answer is none: its {why}")


def _parts(content: Any) -> Any:
    """The parts of a message; some servers send its text as a string."""
    if not isinstance(content, str):
        return content or []
    from openai.types.responses import ResponseOutputText  # slow, but loaded by now

    return [ResponseOutputText(type="output_text", text=content, annotations=[])]


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
    read_usage(response).record(call, response_model=response.model, service_tier=response.service_tier)
