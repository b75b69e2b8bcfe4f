"""What the Responses API says it answered and used, in the engine's words."""

from typing import TYPE_CHECKING, Any, cast

from runmeter.engine import ModelCall

from ...errors import ResponseFailed
from ...requests.finish import finish_reason_of
from ...requests.usage import read_usage

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
