"""Limits of a model: how much it reads and writes in one turn, and what is left out where there is too much to read."""

from collections.abc import Sequence

import msgspec

from ..errors import ApiError, context_length_exceeded
from .billing import prompt_tokens
from .catalogue import Model
from .prompt import Prompt


def check_output_limit(model: Model, given: int | None, param: str, *, chat: bool) -> None:
    """Check that a limit of output is none that the model can never reach.

    Raises:
        ApiError: 400: it is (ChatGPTNextWeb/NextChat#3195, 2023; the Responses API's words follow its other limits').
    """
    if given is None or given <= model.most_output:
        return
    if chat:
        message = (
            f"{param} is too large: {given}. This model supports at most {model.most_output} completion tokens, "
            f"whereas you provided {given}."
        )
        raise ApiError(400, message, param=param, code="invalid_value")
    message = (
        f"Invalid '{param}': integer above maximum value. Expected a value <= {model.most_output}, but got {given} "
        "instead."
    )
    raise ApiError(400, message, param=param, code="integer_above_max_value")


def fitted(prompt: Prompt) -> tuple[Prompt, Sequence[int]]:
    """Make a prompt fit into its model's context window, and count its tokens.

    Raises:
        ApiError: 400 `context_length_exceeded`: it is too long, and may not be made shorter.
    """
    tokens = prompt_tokens(prompt)
    most = prompt.model.most_input
    if len(tokens) > most and prompt.truncates:
        prompt = _shortened(prompt, len(tokens) - most)
        tokens = prompt_tokens(prompt)
    if len(tokens) > most:
        raise context_length_exceeded(most, len(tokens), chat=prompt.api == "chat_completions")
    return prompt, tokens


def limited(prompt: Prompt, input_tokens: int) -> Prompt:
    """Limit the output to what the request says, at most what the model can write, and what its window leaves."""
    model = prompt.model
    asked = prompt.max_output_tokens or model.most_output
    limit = min(asked, model.most_output, model.window - input_tokens)
    return msgspec.structs.replace(prompt, max_output_tokens=limit)


def _shortened(prompt: Prompt, excess: int) -> Prompt:
    """Drop items from the beginning, as many as it takes, but never the last."""
    items = list(prompt.items)
    while excess > 0 and len(items) > 1:
        alone = msgspec.structs.replace(prompt, items=[items.pop(0)], instructions=None, tools=())
        excess -= len(prompt_tokens(alone)) - _FRAME
    return msgspec.structs.replace(prompt, items=items)


_FRAME = 3
"""Tokens of a prompt that has no items."""
