"""The upper bound of what a request to a model can use: budgets reserve it, and it bounds an unreported cost.

Sources: Responses API reference, `max_output_tokens`, `max_tool_calls` (openai 3.54.0,
`types/responses/response_create_params.py`); pricing page, developers.openai.com/api/docs/pricing (2026-11).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

from runmeter.engine import ModelCall, Provenance, Tokenizer, TokenizerError, Usage, context_size

from ..tools.hosted import RUN_HERE

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]
"""Responses input items, Chat Completions messages, or the text of one user message."""

LATE_LIMIT = 1.0
"""Seconds that working out the bound of a request that has ended may take, also if its run is being cancelled."""

_SEARCHES = {
    "web_search": "web_searches",
    "web_search_preview": "web_searches",
    "file_search": "file_searches",
}
_FREE_TURNS = frozenset(("mcp",))
"""Run by OpenAI, and cost no more than the tokens of the turns they take."""
_SPARE = 8
"""Tokens added to each text to embed, for what may be said around it."""

UNKNOWN_INPUT = frozenset(("previous_response_id", "conversation", "prompt"))
"""With one of these parameters a request's input is more than is sent."""

logger = logging.getLogger("runmeter")


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The parts of a request to a model that answers which say how much can be used.

    A tool that OpenAI runs takes another turn of the model within the same request, in which it reads everything again.
    So each of `max_tool_calls` makes room for the whole context once more. Without `max_tool_calls`, or with a tool
    whose fee usage does not tell (a code interpreter, image generation), there is no bound.
    """

    model: str
    messages: Messages
    instructions: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    text_format: Mapping[str, Any] | None = None
    """`text.format` of Responses, or `response_format` of Chat Completions."""
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    """Upper bound on calls of tools that OpenAI runs."""
    answers: int = 1
    """The number of answers: Chat Completions' `n`."""
    refers: bool = False
    """True if the model reads more than is sent: an earlier response, a conversation, a stored prompt."""
    provider: str = "openai"

    async def bound(self) -> Usage | None:
        """Work out the upper bound of usage in a worker thread; None if there is no saying."""
        # Nothing comes of a bound that is not waited for: a cancelled caller need not wait for it either.
        return await anyio.to_thread.run_sync(self.bound_here, abandon_on_cancel=True)

    def bound_here(self, *, by_bytes: bool = False) -> Usage | None:
        """Work out the bound in this thread: a millisecond for a few thousand words, and a second the first time.

        Args:
            by_bytes: Count a token for each byte, which loads no vocabulary and so takes no second.
        """
        most = context_size(self.provider, self.model)
        hosted = [str(tool.get("type")) for tool in self.tools if tool.get("type", "function") not in RUN_HERE]
        read = most if self.refers or hosted else self._count(by_bytes)
        read = most if read is None else read
        written = most if self.max_output_tokens is None else self.max_output_tokens
        turns = 1
        if hosted:
            known = all(kind in _SEARCHES or kind in _FREE_TURNS for kind in map(_undated, hosted))
            if self.max_tool_calls is None or not known:
                return None
            turns += self.max_tool_calls
        if read is None or written is None:
            return None
        if self.max_output_tokens is None:
            written *= turns  # else the limit is on all turns together
        searches = {_SEARCHES[kind] for kind in map(_undated, hosted) if kind in _SEARCHES}
        return Usage(
            input_tokens=read * turns,
            output_tokens=written * self.answers,
            **dict.fromkeys(searches, self.max_tool_calls or 0),
        )

    def _count(self, by_bytes: bool) -> int | None:
        try:
            return Tokenizer(self.model).bound_messages(
                self.messages,
                instructions=self.instructions,
                tools=self.tools,
                text_format=self.text_format,
                by_bytes=by_bytes,
            )
        except TokenizerError:
            logger.warning("cannot count tokens: the context size stands in for what is sent", exc_info=True)
        except (AttributeError, KeyError, TypeError, ValueError):
            pass  # what is not a message here may be one to the server, which alone says what it takes
        return None


@dataclass(frozen=True, kw_only=True)
class SentTexts:
    """Texts that are sent to be embedded."""

    model: str
    texts: Sequence[str]

    async def bound(self) -> Usage | None:
        """Work out the upper bound of usage in a worker thread."""
        return await anyio.to_thread.run_sync(self.bound_here, abandon_on_cancel=True)

    def bound_here(self, *, by_bytes: bool = False) -> Usage | None:
        """Work out the upper bound of usage in this thread; see `Sent.bound_here`."""
        tokenizer = Tokenizer(self.model)
        if tokenizer.exact and not by_bytes:
            try:
                return self._bound(sum(len(tokenizer.encode(text)) for text in self.texts))
            except TokenizerError:
                logger.warning("cannot count tokens: bytes stand in for them", exc_info=True)
        return self._bound(sum(len(text.encode("utf-8", "surrogatepass")) for text in self.texts))  # a token is one

    def _bound(self, tokens: int) -> Usage:
        return Usage(input_tokens=tokens + _SPARE * len(self.texts))


def sent_response(params: Mapping[str, Any], provider: str = "openai") -> Sent:
    """Describe a request to the Responses API by its parameters."""
    return Sent(
        provider=provider,
        model=params["model"],
        messages=params.get("input") or (),
        instructions=params.get("instructions"),
        tools=params.get("tools") or (),
        text_format=text_format_of(params),
        max_output_tokens=params.get("max_output_tokens"),
        max_tool_calls=params.get("max_tool_calls"),
        refers=not params.keys().isdisjoint(UNKNOWN_INPUT),
    )


def sent_completion(params: Mapping[str, Any], provider: str = "openai") -> Sent:
    """Describe a request to Chat Completions by its parameters. Of its two limits the larger is taken."""
    limits = (params.get(name) for name in ("max_completion_tokens", "max_tokens"))
    tools = [*(params.get("tools") or ()), *(params.get("functions") or ())]
    if params.get("web_search_options") is not None:
        tools.append({"type": "web_search"})
    form = params.get("response_format")
    return Sent(
        provider=provider,
        model=params["model"],
        messages=params.get("messages") or (),
        tools=tools,
        text_format=form if isinstance(form, Mapping) else None,
        max_output_tokens=max((limit for limit in limits if isinstance(limit, int)), default=None),
        answers=n if isinstance(n := params.get("n"), int) else 1,
    )


def text_format_of(params: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Read the form that a structured answer of the Responses API is to have."""
    return (params.get("text") or {}).get("format")


async def bound_late(call: ModelCall, sent: Sent | SentTexts) -> None:
    """Record the upper bound of a request's usage, if it has ended without a report and none is recorded yet.

    This holds up the run's cancellation for at most `LATE_LIMIT`, and usually for a millisecond. If that is not
    enough, as where a busy machine loads the vocabulary, each byte counts as a token: a bound all the same.
    """
    if call.provenance is Provenance.REPORTED or call.bound is not None or not call.is_metered:
        return
    with anyio.move_on_after(LATE_LIMIT, shield=True):
        call.bound = await sent.bound()
        return
    call.bound = sent.bound_here(by_bytes=True)


def _undated(kind: str) -> str:
    """Name a tool without its version: `web_search_preview_2025_03_11` is one of `web_search_preview`."""
    head, _, tail = kind.partition("_20")
    return head if tail else kind
