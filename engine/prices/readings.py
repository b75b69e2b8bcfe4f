"""What a usage that contradicts itself can mean: all usages that are consistent, and say what it says, some way.

Servers count in two ways: a part (cached tokens, reasoning) is within its whole, as OpenAI has it, or beside it, as
Anthropic and xAI have it. What is neither is a wrong number, and nothing says which one.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import msgspec

from ..events import Provenance, TokenUsage, Usage

_INPUT_PARTS = (
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_12h_tokens",
    "audio_input_tokens",
    "audio_cache_read_tokens",
    "image_input_tokens",
)
_OUTPUT_PARTS = ("reasoning_tokens", "audio_output_tokens", "image_output_tokens")
_SEARCHES = ("web_searches", "file_searches")
_INPUTS_BESIDE = (
    ("cache_read_tokens",),
    ("cache_write_tokens",),
    ("cache_read_tokens", "cache_write_tokens"),
    ("audio_input_tokens",),
    ("image_input_tokens",),
)
_OUTPUTS_BESIDE = (("reasoning_tokens",), ("audio_output_tokens",), ("image_output_tokens",))
"""Parts that some server counts beside the input or the output, one kind of them or several."""
_WITHIN = {
    "cache_write_12h_tokens": ("cache_write_tokens",),
    "audio_cache_read_tokens": ("audio_input_tokens", "cache_read_tokens"),
}
"""Parts that are within other parts."""


def is_consistent(usage: Usage) -> bool:
    """Tell whether all kinds of usage fit into what they are a part of."""
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    audio_read, audio, image = usage.audio_cache_read_tokens, usage.audio_input_tokens, usage.image_input_tokens
    uncached = usage.input_tokens - read - written
    uncached_media = audio - audio_read + max(image - (read - audio_read), 0)
    return (
        written >= 0 <= read <= usage.input_tokens - written
        and 0 <= usage.reasoning_tokens <= usage.output_tokens
        and 0 <= usage.cache_write_12h_tokens <= written
        and 0 <= audio_read <= min(audio, read)
        and image >= 0
        and uncached_media <= uncached
        and usage.audio_output_tokens >= 0
        and usage.image_output_tokens >= 0
        and usage.audio_output_tokens + usage.image_output_tokens <= usage.output_tokens
        and usage.web_searches >= 0
        and usage.file_searches >= 0
    )


def contradiction_in(usage: Usage, total_tokens: int | None = None) -> str | None:
    """Name the fields of a usage that contradict each other; None if none do.

    Args:
        usage: What was used.
        total_tokens: Input and output tokens together, as the server says.
    """
    found = [f"{name} {count}" for name in usage.__struct_fields__ if (count := getattr(usage, name)) < 0]
    for whole, parts in (
        ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
        ("input_tokens", ("audio_input_tokens",)),
        ("input_tokens", ("image_input_tokens",)),
        ("output_tokens", ("reasoning_tokens",)),
        ("output_tokens", ("audio_output_tokens", "image_output_tokens")),
        ("cache_write_tokens", ("cache_write_12h_tokens",)),
        ("cache_read_tokens", ("audio_cache_read_tokens",)),
        ("audio_input_tokens", ("audio_cache_read_tokens",)),
    ):
        if sum(getattr(usage, part) for part in parts) > getattr(usage, whole):
            told = " + ".join(f"{part} {getattr(usage, part)}" for part in parts if getattr(usage, part))
            found.append(f"{told} of {whole} {getattr(usage, whole)}")
    if not found and not is_consistent(usage):
        found.append(
            f"audio_input_tokens and image_input_tokens beside the cached of input_tokens {usage.input_tokens}"
        )
    if total_tokens is not None and total_tokens != usage.total_tokens:
        found.append(
            f"total_tokens {total_tokens} of input_tokens {usage.input_tokens} and output_tokens {usage.output_tokens}"
        )
    return "; ".join(found) or None


def is_contradictory(event: TokenUsage) -> bool:
    """Tell whether what a request's server reported cannot all be true."""
    usage = event.usage
    return (
        event.provenance is Provenance.REPORTED
        and usage is not None
        and (event.contradiction is not None or event.total_tokens is not None or not is_consistent(usage))
    )


def readings(usage: Usage, total_tokens: int | None = None) -> Sequence[Usage]:
    """Find all usages that a contradictory one can mean. They differ in tokens; none if no number can be believed.

    Parts that cannot be true as they stand are none in some readings, and all of their whole in others: what they are
    lies between. Where the total is told, the readings that add up to it are among them.

    Args:
        usage: As the server says.
        total_tokens: The same, where it is not the sum of input and output.
    """
    if min(usage.input_tokens, usage.output_tokens, *(getattr(usage, name) for name in _SEARCHES)) < 0:
        return ()
    stated = usage.input_tokens, usage.output_tokens
    wholes = {stated, *_beside(usage, overflowing=total_tokens is None)}
    if total_tokens is not None:
        wholes = {each for each in wholes if sum(each) == total_tokens} or _adding_up(*stated, total_tokens)
        if not wholes:
            return ()
        wholes.add(stated)
    found = (reading for read, written in sorted(wholes) for reading in _of_wholes(usage, read, written))
    return list(dict.fromkeys(found))


def _beside(usage: Usage, *, overflowing: bool) -> Iterator[tuple[int, int]]:
    """Input and output, if some of the parts are beside them.

    Args:
        usage: As the server says.
        overflowing: Whether to leave those parts where they are that fit into their whole.
    """
    inputs, outputs = {usage.input_tokens}, {usage.output_tokens}
    for wholes, whole, kinds, parts in (
        (inputs, usage.input_tokens, _INPUT_PARTS, _INPUTS_BESIDE),
        (outputs, usage.output_tokens, _OUTPUT_PARTS, _OUTPUTS_BESIDE),
    ):
        if not (overflowing and _fits(usage, kinds)):
            wholes |= {whole + sum(max(getattr(usage, part), 0) for part in group) for group in parts}
    return product(inputs, outputs)


def _adding_up(read: int, written: int, total_tokens: int) -> set[tuple[int, int]]:
    """Input and output, if the total is right and one of them wrong."""
    pairs = ((read, total_tokens - read), (total_tokens - written, written))
    return {pair for pair in pairs if min(pair) >= 0}


def _of_wholes(usage: Usage, read: int, written: int) -> Iterator[Usage]:
    """The readings with so much input and output."""
    stated = msgspec.structs.replace(usage, input_tokens=read, output_tokens=written)
    for inputs, outputs in product(_shares(stated, _INPUT_PARTS, read), _shares(stated, _OUTPUT_PARTS, written)):
        reading = msgspec.structs.replace(stated, **inputs, **outputs)
        if is_consistent(reading):
            yield reading


def _shares(stated: Usage, kinds: Sequence[str], whole: int) -> Iterator[dict[str, int]]:
    """What the parts of a whole can be: as they stand, if that fits; else none, or all of it of one kind."""
    told = {kind: getattr(stated, kind) for kind in kinds}
    if _fits(stated, kinds):
        yield told
        return
    none = dict.fromkeys(kinds, 0)
    yield none
    for kind, count in told.items():
        if count:
            yield none | dict.fromkeys((kind, *_WITHIN.get(kind, ())), whole)


def _fits(usage: Usage, kinds: Sequence[str]) -> bool:
    """Tell whether these parts fit into their whole."""
    others = {*_INPUT_PARTS, *_OUTPUT_PARTS} - {*kinds}
    return is_consistent(msgspec.structs.replace(usage, **dict.fromkeys(others, 0)))
