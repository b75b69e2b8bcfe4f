"""A retriever on OpenAI's vector stores: search in one that is there, or in one that is made and filled here."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from openai import APIError, NotFoundError

from runmeter.engine import ConfigurationError

from ..config import OpenAIPatternConfig
from ..errors import IngestionError, ResponseFailed
from ..openai_client.clients import Clients
from ..requests.loop_lock import LoopLock
from ..requests.retry import RetryPolicy
from ..retrieval.ingestion import TEXT_FILES, Document, Paths, Progress, document_list, read_files
from ..retrieval.retriever import Passage
from ..text import valid_text
from .responses.requests import Requests
from .responses.tool_loop import given

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import VectorStoreSearchResponse
    from openai.types.vector_stores import VectorStoreFile

T = TypeVar("T")

MOST_RESULTS = 50
"""Passages of one search (openai 3.54.0, `types/vector_store_search_params.py`, 2026-11)."""
_LONGEST_SOURCE = 512
"""Characters of an attribute (the same, `types/vector_stores/file_create_params.py`)."""
_IDLE_DAYS = 7
"""After so many days without use OpenAI deletes a store that was to be deleted by `aclose`, if that never came."""
_CLEANUP_TIMEOUT = 30.0
"""Seconds that deleting may take, also where the caller is being cancelled."""


class VectorStoreRetriever:
    """Searches a vector store. It may be searched many times at once. Close it if documents were added: `aclose`.

    Searching uses no tokens. A passage's place in its source is known if its document was added by this retriever.

    Args:
        config: How to reach the API: key, URL, timeout, retries.
        vector_store_id: The store to search, and to add to; by default one is made when documents are added.
        filters: Which files are searched, by their attributes: `{"type": "eq", "key": …, "value": …}`.
        min_score: The least score, from 0 to 1, of a passage; None takes all.
        rewrite_query: Whether OpenAI rewrites queries for the search.
        persistent: Whether `aclose` leaves what was made here: a store, and files.
        indexing_timeout: Seconds that OpenAI may take to index what one `add` has added.
        poll_interval: Seconds between two looks whether it has.
        sleep: Waits so many seconds.
        retry: When to try a request again; by default what the config says.
        clients: Whose clients to use; by default its own, which `aclose` closes.
    """

    def __init__(
        self,
        config: OpenAIPatternConfig,
        vector_store_id: str | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        rewrite_query: bool = False,
        persistent: bool = False,
        indexing_timeout: float = 600.0,
        poll_interval: float = 1.0,
        sleep: Callable[[float], Awaitable[Any]] = anyio.sleep,
        retry: RetryPolicy | None = None,
        clients: Clients | None = None,
    ) -> None:
        if not (poll_interval > 0 and indexing_timeout >= 0):
            raise ConfigurationError("poll_interval must be positive, and indexing_timeout not negative")
        self.vector_store_id = vector_store_id
        self._requests = Requests.of(config, retry, clients)
        self._filters = filters
        self._min_score = min_score
        self._rewrite_query = rewrite_query
        self._persistent = persistent
        self._polls = indexing_timeout / poll_interval
        self._poll_interval = poll_interval
        self._sleep = sleep
        self._made_store: str | None = None
        self._documents: dict[str, Document] = {}
        """What was added here, by the file's id."""
        self._made_files: list[str] = []
        self._changing = LoopLock()

    @property
    def name(self) -> str:
        """The id of the vector store."""
        return self.vector_store_id or "vector_store"

    async def retrieve(self, query: str, limit: int) -> list[Passage]:
        """Find the passages that fit a query best, the best first; none as long as there is no store.

        Raises:
            ConfigurationError: there is no API key.
            ResponseFailed: there was no answer in time, for the last time.
            openai.APIError: the request was refused, or the connection failed, for the last time.
        """
        store_id = self.vector_store_id
        if store_id is None or not query.strip():
            return []
        params: dict[str, Any] = given(
            query=valid_text(query),
            max_num_results=min(limit, MOST_RESULTS),
            filters=self._filters,
            ranking_options=None if self._min_score is None else {"score_threshold": self._min_score},
            rewrite_query=self._rewrite_query or None,
        )

        async def ask(client: "AsyncOpenAI") -> "list[VectorStoreSearchResponse]":
            page = await client.vector_stores.search(store_id, **params)
            return page.data or []

        return [self._passage(hit) for hit in await self._requests.send(ask)]

    async def add_files(
        self, paths: Paths, *, patterns: Sequence[str] = TEXT_FILES, progress: Progress | None = None
    ) -> None:
        """Upload text files, and wait until they are indexed.

        Args:
            paths: Files, and folders in which files are looked for at any depth.
            patterns: Which files of the folders are read.
            progress: Told how many files are indexed, and of how many.

        Raises:
            IngestionError: a file cannot be read, or OpenAI cannot index it, or not in time.
            ConfigurationError: there is no API key.
            ResponseFailed: there was no answer in time, for the last time.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        await self.add(await read_files(paths, patterns), progress=progress)

    async def add(self, documents: Iterable[Document], *, progress: Progress | None = None) -> None:
        """Upload documents, and wait until they are indexed. Raises what `add_files` raises.

        One that was added here before is replaced. What was uploaded before it fails is there, and deleted by `aclose`.
        """
        added = document_list(documents)
        sources = {document.source for document in added}
        async with self._changing:
            store_id = await self._store()
            replaced = [file_id for file_id, each in self._documents.items() if each.source in sources]
            file_ids = [await self._upload(each, store_id) for each in added if each.text.strip()]
        await self._wait_until_indexed(file_ids, store_id, progress)
        for file_id in replaced:
            if (error := await self._delete_file(file_id)) is not None:
                raise error

    async def aclose(self) -> None:
        """Delete what was made here, unless it is persistent, and close the clients if they are its own.

        Raises:
            openai.APIError, ResponseFailed: something could not be deleted. It may be called again.
            TimeoutError: deleting all took too long. It may be called again.
        """
        try:
            with anyio.fail_after(_CLEANUP_TIMEOUT, shield=True):
                async with self._changing:
                    await self._delete_what_was_made()
        finally:
            await self._requests.aclose()

    async def _store(self) -> str:
        if self.vector_store_id is None:
            expiry: Any = None if self._persistent else {"anchor": "last_active_at", "days": _IDLE_DAYS}
            params: dict[str, Any] = given(name="runmeter", expires_after=expiry)
            made = await self._requests.send(lambda client: client.vector_stores.create(**params))
            self.vector_store_id = self._made_store = made.id
        return self.vector_store_id

    async def _upload(self, document: Document, store_id: str) -> str:
        file = (_file_name(document.source), document.text.encode(), "text/plain")
        uploaded = await self._requests.send(lambda client: client.files.create(file=file, purpose="assistants"))
        self._made_files.append(uploaded.id)
        source = document.source[:_LONGEST_SOURCE]
        await self._requests.send(
            lambda client: client.vector_stores.files.create(
                store_id, file_id=uploaded.id, attributes={"source": source}
            )
        )
        self._documents[uploaded.id] = document
        return uploaded.id

    async def _wait_until_indexed(self, file_ids: Sequence[str], store_id: str, progress: Progress | None) -> None:
        polls = self._polls
        for done, file_id in enumerate(file_ids, 1):
            while (file := await self._file(file_id, store_id)).status == "in_progress":
                if polls <= 0:
                    raise IngestionError(f"OpenAI has not indexed {self._documents[file_id].source!r} in time")
                polls -= 1
                await self._sleep(self._poll_interval)
            if file.status != "completed":
                raise IngestionError(f"OpenAI could not index {self._documents[file_id].source!r}: {_why(file)}")
            if progress is not None:
                progress(done, len(file_ids))

    async def _file(self, file_id: str, store_id: str) -> "VectorStoreFile":
        return await self._requests.send(
            lambda client: client.vector_stores.files.retrieve(file_id, vector_store_id=store_id)
        )

    async def _delete_what_was_made(self) -> None:
        """Delete all that can be, then raise an error if there was one."""
        if self._persistent:
            return
        failure: Exception | None = None
        if (store := self._made_store) is not None:
            failure = await self._delete(lambda client: client.vector_stores.delete(store))
            if failure is None:
                self._made_store = self.vector_store_id = None
        for file_id in list(self._made_files):
            failure = await self._delete_file(file_id) or failure
        if failure is not None:
            raise failure

    async def _delete_file(self, file_id: str) -> Exception | None:
        error = await self._delete(lambda client: client.files.delete(file_id))
        if error is None:
            self._made_files.remove(file_id)
            self._documents.pop(file_id, None)
        return error

    async def _delete(self, request: Callable[["AsyncOpenAI"], Awaitable[Any]]) -> Exception | None:
        try:
            await self._requests.send(request)
        except NotFoundError:
            pass  # it is gone: by a request whose answer was lost, or by another client
        except (APIError, ResponseFailed) as error:
            return error
        return None

    def _passage(self, hit: "VectorStoreSearchResponse") -> Passage:
        text = "\n".join(part.text for part in hit.content or ())
        document = self._documents.get(hit.file_id)
        start = document.text.find(text) if document else -1
        return Passage(
            text=text,
            source=document.source if document else str((hit.attributes or {}).get("source") or hit.filename),
            start=start if start >= 0 else None,
            end=start + len(text) if start >= 0 else None,
            score=hit.score,
        )


def _file_name(source: str) -> str:
    """Make a name that OpenAI takes for that of a text file; not all endings are (guide, "supported files")."""
    name = PurePosixPath(source).name or "document"
    return name if name.endswith((".md", ".txt")) else f"{name}.txt"


def _why(file: "VectorStoreFile") -> str:
    return file.last_error.message if file.last_error else f"its status is {file.status!r}"
