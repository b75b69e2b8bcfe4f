"""Retrieval: passages that a question can be answered from, found in whatever the user searches."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeAlias

import msgspec

from runmeter.engine import ConfigurationError, current_execution

from ..functions import call_function, is_async
from ..text import valid_text


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a source's text."""

    text: str
    source: str = ""
    """The source it is from: a file's name or a URL."""
    start: int | None = None
    """The place in the source's text where it begins, in characters; None if that is not known."""
    end: int | None = None
    """The character after its last one."""
    score: float | None = None
    """The passage's fit to the query: more is better. Scores of different retrievers cannot be compared."""


class Retriever(Protocol):
    """A finder of passages. `name` says what is searched, in events and statistics."""

    @property
    def name(self) -> str:
        """The name of what is searched, such as a vector store's id."""
        ...

    async def retrieve(self, query: str, limit: int) -> Sequence[Passage]:
        """Find the passages that fit a query best, the best first, at most `limit` of them."""
        ...


RetrieverLike: TypeAlias = Any
"""A `Retriever`, a LangChain retriever, or a function, sync or async, from a query to passages or strings.

A sync function runs in a worker thread. A LangChain retriever with async code of its own needs asyncio.
"""


def as_retriever(retriever: RetrieverLike) -> Retriever:
    """Make a `Retriever` of a value that stands for one.

    Raises:
        ConfigurationError: it does not stand for one.
    """
    if not isinstance(retriever, type):
        if callable(getattr(retriever, "retrieve", None)) and hasattr(retriever, "name"):
            as_is: Retriever = retriever
            return as_is
        if hasattr(retriever, "ainvoke") and hasattr(retriever, "invoke"):
            return _FunctionRetriever(_name_of(retriever), _langchain_search(retriever))
        if callable(retriever):
            return _FunctionRetriever(_name_of(retriever), _search_with(retriever))
    raise ConfigurationError(
        f"{retriever!r} is not a retriever: give an object with `name` and `async retrieve(query, limit)`, a LangChain "
        "retriever, or a function from a query to passages"
    )


async def search(retriever: Retriever, query: str, limit: int, min_score: float | None = None) -> tuple[Passage, ...]:
    """Find passages, as an event of the current run.

    Args:
        retriever: Finds them.
        query: What is asked.
        limit: How many at most.
        min_score: Passages with a lower score are left out; those without a score are not.

    Raises:
        ConfigurationError: what the retriever gave is not passages.
        Exception: whatever the retriever raises.
    """
    with current_execution().retrieval(str(retriever.name), requested=limit) as call:
        answer: Any = retriever.retrieve(query, limit)
        if not inspect.isawaitable(answer):
            raise ConfigurationError(f"{type(retriever).__name__}.retrieve is not async")
        found = _passages_of(await answer, limit)
        passages = tuple(each for each in found if min_score is None or each.score is None or each.score >= min_score)
        scores = [passage.score for passage in passages if passage.score is not None]
        call.record(len(passages), max(scores, default=None))
    return passages


@dataclass(frozen=True)
class _FunctionRetriever:
    name: str
    search: Callable[[str], Awaitable[Any]]

    async def retrieve(self, query: str, limit: int) -> Sequence[Passage]:
        """Find passages by the function."""
        return _passages_of(await self.search(query), limit)


def _name_of(retriever: Any) -> str:
    return str(getattr(retriever, "name", None) or getattr(retriever, "__name__", None) or type(retriever).__name__)


def _search_with(function: Callable[[str], Any]) -> Callable[[str], Awaitable[Any]]:
    return functools.partial(call_function, function if is_async(function) else functools.partial(_find, function))


def _find(function: Callable[[str], Any], query: str) -> Any:
    """Call a function, and have all that it finds found: a generator does its work only when it is asked for things."""
    found = function(query)
    return list(found) if inspect.isgenerator(found) else found


def _langchain_search(retriever: Any) -> Callable[[str], Awaitable[Any]]:
    # LangChain gives sync retrievers to asyncio's thread pool, which trio has not: they go to anyio's.
    method = getattr(type(retriever), "_aget_relevant_documents", None)
    if getattr(method, "__qualname__", "").startswith("BaseRetriever."):
        return _search_with(functools.partial(retriever.invoke))
    find: Callable[[str], Awaitable[Any]] = retriever.ainvoke
    return find


def _passages_of(found: Any, limit: int) -> list[Passage]:
    """Read the first passages of what was found: several things, one, or None for nothing.

    Raises:
        ConfigurationError: something is not a passage.
    """
    if found is None:
        return []
    several = [found] if isinstance(found, str | Mapping | Passage) or not isinstance(found, Iterable) else found
    return [_sendable(_as_passage(each)) for each in islice(several, limit)]


def _as_passage(found: Any) -> Passage:
    """Make a passage of what a function found: one itself, a string, a dict, or LangChain's `Document`.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(found, Passage):
        return found
    if isinstance(found, str):
        return Passage(text=found)
    if isinstance(found, Mapping):
        try:
            return msgspec.convert(dict(found), Passage)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"a retriever's dict is not a passage: {error}") from error
    if hasattr(found, "page_content"):
        metadata = getattr(found, "metadata", None) or {}
        return Passage(text=found.page_content, source=str(metadata.get("source") or ""))
    raise ConfigurationError(f"a retriever gave a {type(found).__name__!r}: give passages, strings, dicts or documents")


def _sendable(passage: Passage) -> Passage:
    """Make a passage valid, so that every codec takes it.

    Raises:
        ConfigurationError: its text or source is not a string, or its score not a number.
    """
    try:
        score = None if passage.score is None else float(passage.score)  # local indexes answer in numpy's numbers
        return msgspec.structs.replace(
            passage, text=valid_text(passage.text), source=valid_text(passage.source), score=score
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            "a retriever's passage has a text or source that is not a string, or a score that is not a number"
        ) from error
