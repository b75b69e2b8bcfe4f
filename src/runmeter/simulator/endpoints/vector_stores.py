"""The Vector Stores API: stores, their files, and search.

Source of the parameters: openai 3.54.0, `types/vector_store_create_params.py`, `types/vector_store_search_params.py`,
`types/vector_stores/file_create_params.py` and `file_list_params.py` (2026-11).
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError, convert, decode
from ..model.prompt import Metadata, MetadataKey, MetadataText
from ..objects.chunking import ChunkSize
from ..objects.filters import Attribute, Filter
from ..objects.pages import PageParams, write_page
from ..objects.vector_store import MOST_FILES, Expiry, IndexedFile, VectorStore
from ..service import Answer, Call, Service
from .files import find_upload

USUAL_SIZE = ChunkSize(max_chunk_size_tokens=800, chunk_overlap_tokens=400)

Attributes: TypeAlias = Annotated[dict[MetadataKey, MetadataText | bool | int | float], msgspec.Meta(max_length=16)]
Query: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class ChunkingStrategy(msgspec.Struct, forbid_unknown_fields=True):
    """The way files are to be cut.

    Raises:
        ValueError: A static strategy without its sizes, or another with them.
    """

    type: Literal["auto", "static"]
    static: ChunkSize | None = None

    def __post_init__(self) -> None:
        if (self.type == "static") is (self.static is None):
            raise ValueError("a static strategy has 'static', and only that")


class CreateVectorStore(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /vector_stores."""

    name: str | None = None
    description: Any = None
    file_ids: list[str] = []
    metadata: Metadata | None = None
    chunking_strategy: ChunkingStrategy | None = None
    expires_after: Expiry | None = None


class AddFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /vector_stores/{id}/files."""

    file_id: str
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None


class RankingOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of the ranking of results: there is one ranker, whichever is asked for."""

    ranker: Literal["none", "auto", "default-2024-11-15"] = "auto"
    score_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class Search(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /vector_stores/{id}/search."""

    query: Query | Annotated[list[Query], msgspec.Meta(min_length=1)]
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=50)] = 10
    filters: Filter | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: bool = False
    """Queries are taken as they are, whatever it says."""


class ListFiles(PageParams, kw_only=True):
    """The query of GET /vector_stores/{id}/files."""

    filter: Literal["in_progress", "completed", "failed", "cancelled"] | None = None


def create(service: Service, call: Call) -> Answer:
    """Answer POST /vector_stores with a new store."""
    request = decode(call.body, CreateVectorStore)
    now = int(service.clock())
    uploads = [find_upload(service, file_id) for file_id in request.file_ids]
    store = VectorStore(service.new_id("vs_"), request.name or "", request.metadata or {}, request.expires_after, now)
    for upload in uploads:
        store.add(upload, {}, _size(request.chunking_strategy), now)
    service.vector_stores.put(store.id, store)
    return msgspec.json.encode(store.describe(now))


def list_stores(service: Service, call: Call) -> Answer:
    """Answer GET /vector_stores with a page: the newest first, unless asked otherwise."""
    now = int(service.clock())
    return write_page(
        list(service.vector_stores.values()),
        convert(dict(call.query), PageParams, "", strict=False),
        id_of=lambda store: store.id,
        wire=lambda store: store.describe(now),
        missing=_no_store,
    )


def retrieve(service: Service, call: Call) -> Answer:
    """Answer GET /vector_stores/{id} with the store."""
    return msgspec.json.encode(_find(service, call.id).describe(int(service.clock())))


def delete(service: Service, call: Call) -> Answer:
    """Answer DELETE /vector_stores/{id}, and forget the store. Its files stay uploaded."""
    service.vector_stores.delete(_find(service, call.id).id)
    return msgspec.json.encode({"id": call.id, "object": "vector_store.deleted", "deleted": True})


def add_file(service: Service, call: Call) -> Answer:
    """Answer POST /vector_stores/{id}/files, and index the file."""
    now = int(service.clock())
    store = _find_active(service, call.id, now)
    request = decode(call.body, AddFile)
    upload = find_upload(service, request.file_id)
    if len(store.files) >= MOST_FILES:
        raise ApiError(400, f"A vector store has at most {MOST_FILES} files.", param="file_id")
    attributes: dict[str, Attribute] = dict(request.attributes or {})
    file = store.add(upload, attributes, _size(request.chunking_strategy), now)
    return msgspec.json.encode(file.description)


def list_files(service: Service, call: Call) -> Answer:
    """Answer GET /vector_stores/{id}/files with a page: the newest first, unless asked otherwise."""
    store = _find(service, call.id)
    request = convert(dict(call.query), ListFiles, "", strict=False)
    return write_page(
        [file.description for file in store.files.values()],
        request,
        id_of=lambda file: file.id,
        wire=lambda file: file,
        missing=lambda file_id: _no_file(store, file_id),
        wanted=lambda file: request.filter in {None, file.status},
    )


def retrieve_file(service: Service, call: Call) -> Answer:
    """Answer GET /vector_stores/{id}/files/{file_id} with the file."""
    return msgspec.json.encode(_find_file(_find(service, call.id), call.part_id).description)


def delete_file(service: Service, call: Call) -> Answer:
    """Answer DELETE /vector_stores/{id}/files/{file_id}, and take the file out. The file itself stays uploaded."""
    store = _find(service, call.id)
    store.remove(_find_file(store, call.part_id).description.id)
    return msgspec.json.encode({"id": call.part_id, "object": "vector_store.file.deleted", "deleted": True})


def search(service: Service, call: Call) -> Answer:
    """Answer POST /vector_stores/{id}/search with the chunks that fit."""
    now = int(service.clock())
    store = _find_active(service, call.id, now)
    request = decode(call.body, Search)
    queries = [request.query] if isinstance(request.query, str) else request.query
    least = request.ranking_options.score_threshold if request.ranking_options else 0.0
    hits = [hit for hit in store.search(queries, request.filters, now) if hit.score >= least]
    return msgspec.json.encode(
        {
            "object": "vector_store.search_results.page",
            "search_query": queries,
            "data": hits[: request.max_num_results],
            "has_more": False,
            "next_page": None,
        }
    )


def _size(strategy: ChunkingStrategy | None) -> ChunkSize:
    return strategy.static if strategy and strategy.static else USUAL_SIZE


def _find(service: Service, store_id: str) -> VectorStore:
    store = service.vector_stores.get(store_id)
    if store is None:
        raise _no_store(store_id)
    return store


def _no_store(store_id: str) -> ApiError:
    return ApiError(404, f"Vector store with id '{store_id}' not found.")


def _find_active(service: Service, store_id: str, now: int) -> VectorStore:
    """Find a store that has not expired: one that has can be looked at, but not used."""
    store = _find(service, store_id)
    if store.expired(now):
        raise ApiError(400, f"Vector store {store.id} is expired.")
    return store


def _find_file(store: VectorStore, file_id: str) -> IndexedFile:
    file = store.files.get(file_id)
    if file is None:
        raise _no_file(store, file_id)
    return file


def _no_file(store: VectorStore, file_id: str) -> ApiError:
    """Make the error of a file that is not in a store (its words: mkdev-me/terraform-provider-openai#35)."""
    return ApiError(404, f"No file found with id '{file_id}' in vector store '{store.id}'.")
