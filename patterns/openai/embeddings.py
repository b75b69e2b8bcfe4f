"""Embeddings: metered requests for vectors, and a retriever that searches them on this machine."""

import os
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, TypeAlias

import anyio.to_thread
from openai import APIError

from runmeter.engine import ModelCall, ModelRequest, Provenance, TokenCounter, Usage, current_execution

from ..config import OpenAIPatternConfig
from ..errors import ResponseFailed
from ..openai_client.clients import Clients
from ..requests.bounds import SentTexts, bound_late
from ..requests.loop_lock import LoopLock
from ..requests.retry import RetryPolicy, used_nothing, with_retries
from ..requests.usage import read_usage
from ..retrieval.index import PassageIndex
from ..retrieval.ingestion import (
    TEXT_FILES,
    Chunking,
    Document,
    PathLike,
    Paths,
    Progress,
    document_list,
    path_list,
    read_files,
    split,
)
from ..retrieval.retriever import Passage
from .responses.requests import Requests
from .responses.tool_loop import given

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import CreateEmbeddingResponse

DEFAULT_EMBEDDING_MODEL = "text-embedding-3-small"
"""The cheapest current one (OpenAI price list, 2026-11)."""

LONGEST_TEXT = 8_192
"""Tokens of one text (openai 3.54.0, `types/embedding_create_params.py`, 2026-11)."""
_BATCH_BYTES = 300_000
"""The API's limit on the tokens of one request, from the same source. A token is at least one byte."""
_BATCH_TEXTS = 100
"""Far below the API's 2048: reading a long answer would keep the event loop from other work."""

Vector: TypeAlias = "array[float]"


class MeteredEmbeddings:
    """Asks for vectors of texts; each attempt is a model call with its usage and that usage's provenance.

    Args:
        requests: Sends the requests.
        model: An embedding model.
        dimensions: How long the vectors are to be; by default as the model makes them.
        estimate: Whether to count locally where the API reports no usage.
    """

    def __init__(
        self,
        requests: Requests,
        model: str = DEFAULT_EMBEDDING_MODEL,
        *,
        dimensions: int | None = None,
        estimate: bool = True,
    ) -> None:
        self.model = model
        self.dimensions = dimensions
        self._requests = requests
        self._estimate = estimate

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Embed some texts, in one request.

        Args:
            texts: At least one, none of them empty, and no more than the API takes in one request: see `batches`.

        Raises:
            BudgetExceeded: a budget has no room for the request: it did not leave, and is not tried again.
            UnboundedRequest: a budget counts USD, and the model has no known price.
            ConfigurationError: there is no API key.
            ResponseFailed: there was no answer in time, or it holds no vectors.
            openai.APIError: the request was refused, or the connection failed, for the last time.
        """
        execution = current_execution()
        sent = SentTexts(model=self.model, texts=texts)
        bound = await sent.bound() if execution.budgeted else None
        request = self._describe(self._requests.clients.get(), bound)

        async def send(attempt: int) -> list[Vector]:
            async with (
                execution.reserve(request) as allowed,
                self._requests.clients.key_at_hand(),
                execution.model_call(allowed, attempt=attempt) as call,
            ):
                try:
                    return await self._attempt(texts, call)
                finally:
                    await bound_late(call, sent)

        return await with_retries(send, self._requests.policy)

    async def _attempt(self, texts: Sequence[str], call: ModelCall) -> list[Vector]:
        params = given(model=self.model, dimensions=self.dimensions)

        async def ask(client: "AsyncOpenAI") -> "CreateEmbeddingResponse":
            return await client.embeddings.create(input=list(texts), encoding_format="float", **params)

        try:
            answer = await self._requests.attempt(ask)
        except (APIError, ResponseFailed) as error:
            if used_nothing(error):
                call.record(Usage())
            raise
        await self._record(call, answer, texts)
        return _vectors(answer, len(texts))

    async def _record(self, call: ModelCall, answer: "CreateEmbeddingResponse", texts: Sequence[str]) -> None:
        call.response_model = getattr(answer, "model", None)
        reading = read_usage(answer)
        reading.record(call)
        if reading.usage is None and self._estimate:
            counts = [(await TokenCounter().count_text(text, self.model)).tokens for text in texts]
            call.record(Usage(input_tokens=sum(counts)), Provenance.ESTIMATED)

    def _describe(self, client: "AsyncOpenAI", bound: Usage | None) -> ModelRequest:
        url = client.base_url
        provider, model = self._requests.clients.provider_and_model(self.model)
        return ModelRequest(
            provider=provider,
            model=model,
            operation="embeddings",
            server_address=url.host,
            server_port=url.port or (443 if url.scheme == "https" else 80),
            bound=bound,
        )


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Divide texts into groups that are not too large for one request."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == _BATCH_TEXTS or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


class EmbeddingRetriever:
    """Searches documents by the vectors of their passages, on this machine.

    It may be searched many times at once, in any event loop. What is added by a run counts as that run's usage; what is
    added outside a run is not metered.

    Args:
        config: How to reach the API: key, URL, timeout, retries.
        files: Files and folders that are read and added on first use, or by `prepare`.
        patterns: Which files of the folders are read.
        name: What is searched, in events and statistics.
        model: An embedding model.
        dimensions: How long the vectors are to be; by default as the model makes them.
        chunking: How large passages are.
        min_score: The least cosine, from -1 to 1, of a passage with the query; None takes all.
        progress: Told how many texts are embedded, of how many, when `files` are added.
        retry: When to try a request again; by default what the config says.
        clients: Whose clients to use; by default its own, which `aclose` closes.
    """

    def __init__(
        self,
        config: OpenAIPatternConfig,
        files: Paths = (),
        *,
        patterns: Sequence[str] = TEXT_FILES,
        name: str = "local",
        model: str = DEFAULT_EMBEDDING_MODEL,
        dimensions: int | None = None,
        chunking: Chunking | None = None,
        min_score: float | None = None,
        progress: Progress | None = None,
        retry: RetryPolicy | None = None,
        clients: Clients | None = None,
    ) -> None:
        self.name = name
        self._requests = Requests.of(config, retry, clients)
        self._embeddings = MeteredEmbeddings(
            self._requests, model, dimensions=dimensions, estimate=config.enable_token_counting
        )
        self._chunking = chunking or Chunking()
        self._min_score = min_score
        self._waiting = path_list(files)
        self._patterns = patterns
        self._progress = progress
        self._index = PassageIndex(model if dimensions is None else f"{model}/{dimensions}")
        self._embedded: dict[str, Vector] = {}
        """Vectors that are not in the index yet: of additions that are under way, or that failed."""
        self._changing = LoopLock()
        self._replacing = threading.Lock()  # additions of several event loops may end at once

    @property
    def passages(self) -> Sequence[Passage]:
        """The passages that can be found."""
        return self._index.passages

    async def prepare(self) -> None:
        """Add the constructor's files now and not on first use. Once, also if it is called many times at once, unless
        that is in several event loops.

        Raises what `add_files` raises; then it may be tried again, and what was embedded is not embedded again.
        """
        if not self._waiting:
            return
        async with self._changing:
            if self._waiting:
                await self._add(await read_files(self._waiting, self._patterns), self._progress)
                self._waiting = []

    async def add_files(
        self, paths: Paths, *, patterns: Sequence[str] | None = None, progress: Progress | None = None
    ) -> None:
        """Add text files to the index. One that is there already is replaced.

        Args:
            paths: Files, and folders in which files are looked for at any depth.
            patterns: Which files of the folders are read; by default the constructor's.
            progress: Told how many texts are embedded, and of how many.

        Raises:
            IngestionError: a file or folder is not there, or cannot be read.
            ConfigurationError: there is no API key.
            ResponseFailed: there was no answer in time, or it holds no vectors.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        await self.add(await read_files(paths, patterns or self._patterns), progress=progress)

    async def add(self, documents: Iterable[Document], *, progress: Progress | None = None) -> None:
        """Add documents to the index: all or, if it fails, none. One whose source is there already replaces it.

        Equal texts are embedded once. If it fails, what was embedded is kept for the next try.

        Args:
            documents: What to add.
            progress: Told how many texts are embedded, and of how many.

        Raises:
            ConfigurationError: there is no API key, or one of `documents` is not a `Document`.
            ResponseFailed: there was no answer in time, or it holds no vectors.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        async with self._changing:
            await self._add(document_list(documents), progress)

    async def retrieve(self, query: str, limit: int) -> list[Passage]:
        """Find the passages nearest to a query, the best first. Raises what `add_files` raises."""
        await self.prepare()
        # A token is at least a byte. What is longer than the API takes is searched for by its beginning.
        text = query.encode(errors="replace")[:LONGEST_TEXT].decode(errors="ignore")
        index = self._index
        if not text.strip() or not index.passages:
            return []
        [vector] = await self._embeddings.embed([text])
        nearest = partial(index.nearest, vector, limit, self._min_score)
        return await anyio.to_thread.run_sync(nearest, abandon_on_cancel=True)

    async def save(self, path: PathLike) -> None:
        """Write the index to a file (`.npz`, with the passages' texts), to be loaded in place of embedding anew.

        Raises:
            OSError: it cannot be written.
        """
        await anyio.to_thread.run_sync(self._index.save, os.fspath(path))

    async def load(self, path: PathLike) -> None:
        """Read the index from a file that `save` has written, in place of what was added before.

        Raises:
            OSError: it cannot be read.
            ConfigurationError: it holds no index, or one of another model or other dimensions.
        """
        async with self._changing:
            self._index = await anyio.to_thread.run_sync(PassageIndex.load, os.fspath(path), self._index.model)
            self._waiting = []

    async def aclose(self) -> None:
        """Close the clients if they are its own. What was added stays."""
        await self._requests.aclose()

    async def _add(self, documents: Sequence[Document], progress: Progress | None) -> None:
        passages: list[Passage] = []
        for document in documents:
            cut = partial(split, document, self._chunking, self._embeddings.model)
            passages += await anyio.to_thread.run_sync(cut, abandon_on_cancel=True)
        embedded = self._embedded  # these, also if another event loop's addition ends meanwhile
        texts = dict.fromkeys(passage.text for passage in passages)
        missing = [text for text in texts if text not in self._index.rows and text not in embedded]
        done = 0
        for batch in batches(missing):
            vectors = await self._embeddings.embed(batch)
            embedded.update(zip(batch, vectors, strict=True))
            done += len(batch)
            if progress is not None:
                progress(done, len(missing))
        sources = {document.source for document in documents}
        await anyio.to_thread.run_sync(self._replace, sources, passages, embedded)

    def _replace(self, sources: set[str], passages: Sequence[Passage], embedded: dict[str, Vector]) -> None:
        with self._replacing:
            self._index = self._index.replaced(sources, passages, embedded)
            self._embedded = {}


def _vectors(answer: "CreateEmbeddingResponse", count: int) -> list[Vector]:
    """Read the vectors of an answer, in the order of the texts.

    Raises:
        ResponseFailed: it has not as many as there were texts, or they are not vectors.
    """
    try:
        ordered = sorted(answer.data, key=lambda each: each.index)
        vectors = [array("f", each.embedding) for each in ordered]
    except (AttributeError, TypeError) as error:
        raise ResponseFailed("invalid_response", "the server's answer is not one of the Embeddings API") from error
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != count or len(lengths) != 1 or 0 in lengths or not all(isfinite(sum(each)) for each in vectors):
        raise ResponseFailed("invalid_response", "the server's answer has not one vector for each text")
    return vectors
