"""The client's calls as patterns of one's own, metered as Runmeter's documentation says: `examples/own_pattern.py`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from metering.calls import ask_chat, ask_responses
from stub import MODEL

from runmeter import ModelCall, ModelRequest, Usage, current_execution


def patterns(client: Any) -> Mapping[str, Callable[[Any, Any], Awaitable[None]]]:
    """The cases' calls, each a pattern."""

    async def call_chat(messages: Any, context: Any) -> None:
        request = ModelRequest(provider="openai", model=MODEL, api="chat_completions")
        with current_execution().model_call(request) as call:
            record_completion(call, await ask_chat(client))

    async def call_responses(messages: Any, context: Any) -> None:
        request = ModelRequest(provider="openai", model=MODEL, api="responses")
        with current_execution().model_call(request) as call:
            record_response(call, await ask_responses(client))

    async def stream_chat(messages: Any, context: Any) -> None:
        request = ModelRequest(provider="openai", model=MODEL, api="chat_completions", stream=True)
        with current_execution().model_call(request) as call:
            async for chunk in await ask_chat(client, stream=True):
                call.first_chunk()
                if chunk.choices and chunk.choices[0].finish_reason:
                    call.finish_reasons = (chunk.choices[0].finish_reason,)
                if chunk.usage is not None:
                    record_completion(call, chunk)

    async def stream_responses(messages: Any, context: Any) -> None:
        request = ModelRequest(provider="openai", model=MODEL, api="responses", stream=True)
        with current_execution().model_call(request) as call:
            async for event in await ask_responses(client, stream=True):
                call.first_chunk()
                if event.type == "response.completed":
                    record_response(call, event.response)

    return {
        "chat call": call_chat,
        "responses call": call_responses,
        "50-chunk chat stream": stream_chat,
        "50-chunk responses stream": stream_responses,
    }


def record_completion(call: ModelCall, said: Any) -> None:
    """Record what a completion, or the last chunk of a stream, says that it used."""
    used = said.usage
    usage = Usage(
        input_tokens=used.prompt_tokens,
        output_tokens=used.completion_tokens,
        cache_read_tokens=used.prompt_tokens_details.cached_tokens,
        reasoning_tokens=used.completion_tokens_details.reasoning_tokens,
    )
    call.record(
        usage,
        response_id=said.id,
        response_model=said.model,
        service_tier=said.service_tier,
        finish_reasons=tuple(choice.finish_reason for choice in said.choices),
    )


def record_response(call: ModelCall, response: Any) -> None:
    """Record what a response says that it used."""
    used = response.usage
    usage = Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.input_tokens_details.cached_tokens,
        cache_write_tokens=used.input_tokens_details.cache_write_tokens,
        reasoning_tokens=used.output_tokens_details.reasoning_tokens,
    )
    call.record(
        usage,
        response_id=response.id,
        response_model=response.model,
        service_tier=response.service_tier,
        finish_reasons=("stop",),
    )
