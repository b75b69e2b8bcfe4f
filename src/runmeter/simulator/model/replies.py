"""The model's replies: what the user scripted, or else something sensible made from the request alone."""

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias
from zlib import crc32

import msgspec

from .arguments import synthesise
from .prompt import Output, Prompt, PromptTool
from .questions import QUOTING, asking, question
from .quotations import answer_from_passages
from .ranking import RankedDocument, Ranking
from .words import keywords, plain_sentences, shorten, summary


class ScriptedCall(msgspec.Struct, frozen=True):
    """A function call that the model asks for."""

    name: str
    arguments: str = "{}"
    """JSON, or whatever the model is to send in its place: it is passed on as it is."""


class Reply(msgspec.Struct, frozen=True):
    """The model's reply to one request."""

    text: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    reasoning_tokens: int = 0
    """Spent before the answer, and billed as output."""


Script: TypeAlias = Callable[[Prompt], Reply | None]
"""Decides on the reply to a prompt; None leaves it to the simulator. Runs in the simulator's thread."""


class Replies:
    """A source of replies, in this order: the queue, the script, the simulator itself."""

    def __init__(self, script: Script | Iterable[Reply] | None) -> None:
        self._script: Script | None = script if callable(script) else None
        self._queue = deque[Reply](() if script is None or callable(script) else script)

    def add(self, replies: Iterable[Reply]) -> None:
        """Append replies to the queue. Safe from any thread: a deque's `extend` is not atomic, its `append` is."""
        for reply in replies:
            self._queue.append(reply)

    def reply(self, prompt: Prompt) -> Reply:
        """Take the reply to a prompt. A queued one is used up by that."""
        if self._queue:
            return self._queue.popleft()
        scripted = self._script(prompt) if self._script else None
        return scripted or improvise(prompt)


def improvise(prompt: Prompt) -> Reply:
    """Make a reply without a script.

    Tools offered are called on the first turn of each user message, then their outputs are used for an answer. Where
    one must be called on every turn, it is one that was not called yet, as long as there is any: one of them may be how
    to answer. What was handed over by one agent is not handed on by the next.
    """
    outputs = [output for output in prompt.outputs if not output.tool.startswith(_HANDOFF)]
    handed_over = len(outputs) < len(prompt.outputs)
    tools = [tool for tool in prompt.allowed if not (handed_over and tool.name.startswith(_HANDOFF))]
    if prompt.choice == "required" or (tools and not outputs):
        tools = tools or list(prompt.allowed)
        fresh = [tool for tool in tools if tool.name not in prompt.called]
        return Reply(tool_calls=_calls(prompt, fresh or tools), reasoning_tokens=_reasoning_tokens(prompt))
    if prompt.json_schema is not None:
        made = synthesise(prompt.json_schema, _subject(prompt), _chance_of_all(prompt))
        text = json.dumps(made, ensure_ascii=False)
    else:
        text = answer_from_passages(prompt) or _answer(prompt, outputs)
    return Reply(text, reasoning_tokens=_reasoning_tokens(prompt))


def _calls(prompt: Prompt, tools: Sequence[PromptTool]) -> tuple[ScriptedCall, ...]:
    """Choose the tool that fits the user's words best; for about every third text, the second best as well."""
    asked = keywords(prompt.user_text)

    def fit(tool: PromptTool) -> int:
        properties = " ".join(tool.parameters.get("properties") or ())
        return len(asked & keywords(f"{tool.name} {properties}")) * 3 + len(asked & keywords(tool.description))

    best = sorted(tools, key=fit, reverse=True)
    two = prompt.parallel and _chance(prompt) % 3 == 0
    return tuple(
        ScriptedCall(tool.name, json.dumps(synthesise(tool.parameters, _subject(prompt)), ensure_ascii=False))
        for tool in best[: 2 if two else 1]
    )


_HANDOFF = "transfer_to_"
"""Prefix of the names of tools that hand over to another agent. Source: openai-agents 0.24.0, `default_tool_name`."""
_LONGEST = 240
"""Characters of what is said of one tool's output."""
_SOURCE = re.compile(r"^[\w./-]{1,80}\.\w{1,5}: ")
"""The name of a file before what it says."""
_EFFORT = {"minimal": 16, "low": 64, "medium": 192, "high": 512, "xhigh": 1024, "max": 2048}
"""Reasoning tokens by effort, before chance adds up to a half. Made up: real ones vary far more."""


def _reasoning_tokens(prompt: Prompt) -> int:
    """Count the tokens of reasoning: only a request that asks for an effort gets some, the rest stays cheap."""
    tokens = _EFFORT.get(prompt.effort or "none", 0)
    return tokens + _chance(prompt) % (tokens // 2) if tokens else 0


def _chance(prompt: Prompt) -> int:
    """Draw a number as good as random, but always the same for the same text."""
    return crc32(prompt.user_text.encode(errors="replace"))


def _chance_of_all(prompt: Prompt) -> int:
    """Draw a number, always the same for all the prompt says: a new attempt at the same task is judged anew."""
    chance = crc32((prompt.instructions or "").encode(errors="replace"))
    for item in prompt.items:
        chance = crc32((item.text or item.arguments or "").encode(errors="replace"), chance)
    return chance


def _subject(prompt: Prompt) -> str:
    """Find the user's last message that asks something: a later one may only say how to answer it."""
    return asking(item.text for item in prompt.items if item.type == "message" and item.role == "user")


def _answer(prompt: Prompt, outputs: Sequence[Output]) -> str:
    asked = question(_subject(prompt))
    if outputs:
        return " ".join(f"{output.tool or 'The tool'} says: {_digest(output.text, asked)}" for output in outputs)
    if said := summary(prompt.user_text):
        return said
    return f'{QUOTING}{asked}"' if asked else "There was nothing to answer."


def _digest(output: str, asked: str) -> str:
    """Tell a tool's output in a sentence or two."""
    try:
        value = json.loads(output)
    except ValueError:
        return _gist(output, asked)
    match value:
        case [str(), *_] if all(isinstance(each, str) for each in value):
            return _gist("\n\n".join(_SOURCE.sub("", each) for each in value), asked)
        case dict() | list():
            return _ended(shorten(_spell_out(value), _LONGEST))
        case _:
            return _ended(shorten(str(value), _LONGEST))


def _gist(text: str, asked: str) -> str:
    """Find the sentence of a text that fits the question best, or says most, or is its beginning."""
    lines = plain_sentences(text)
    sentences = [line for line in lines if len(line) <= _LONGEST and line[:1].isupper() and line.endswith((".", "!"))]
    scores = Ranking([RankedDocument.of(line) for line in sentences]).scores(asked)
    if any(scores):
        return sentences[max(range(len(scores)), key=lambda index: scores[index])]
    return summary(text, most=2) or _ended(shorten(text, _LONGEST))


def _spell_out(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(_entry(key, each) for key, each in list(value.items())[:8])
        case list():
            return "; ".join(_spell_out(each) for each in value[:4])
        case _:
            return str(value)


def _entry(key: str, value: Any) -> str:
    """Write an entry of an object: `4 words`, or `city: Berlin`."""
    is_count = key.endswith("s") and isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,} {key}" if is_count else f"{key}: {_spell_out(value)}"


def _ended(line: str) -> str:
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."
