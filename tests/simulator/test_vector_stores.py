"""The Vector Stores API of the simulator, through the real client: stores, their files, search, chunks and filters."""

import operator
from typing import Any, cast

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types import VectorStoreCreateParams, VectorStoreSearchParams
from openai.types.vector_stores import FileCreateParams, FileListParams
from simulator_support import connect

from runmeter.engine import Tokenizer
from runmeter.simulator import Simulator
from runmeter.simulator.endpoints.vector_stores import AddFile, CreateVectorStore, ListFiles, Search
from runmeter.simulator.objects.chunking import ChunkSize, cut
from runmeter.simulator.objects.filters import Filter

SEA = "The sea is 3,688 m deep on average. It covers most of the planet."
BEES = "Bees visit flowers. They make honey."
CATS = "Cats sleep most of the day."
SMALL: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}


async def upload(client: AsyncOpenAI, content: str | bytes, name: str = "notes.txt") -> str:
    raw = content if isinstance(content, bytes) else content.encode()
    return (await client.files.create(file=(name, raw), purpose="assistants")).id


async def store_of(client: AsyncOpenAI, *texts: str) -> str:
    """A store with a file of each text, `0.txt`, `1.txt`, …, with `n` among its attributes."""
    store = await client.vector_stores.create()
    for n, text in enumerate(texts):
        file = await upload(client, text, f"{n}.txt")
        await client.vector_stores.files.create(store.id, file_id=file, attributes={"n": n})
    return store.id


async def found(client: AsyncOpenAI, store: str, query: Any, **settings: Any) -> list[str]:
    """The names of the files found."""
    return [hit.filename async for hit in client.vector_stores.search(store, query=query, **settings)]


# --- Stores ---


async def test_a_store_lives_from_create_to_delete(client: AsyncOpenAI) -> None:
    files = [await upload(client, SEA), await upload(client, BEES)]
    made = await client.vector_stores.create(name="Nature", description="d", metadata={"k": "v"}, file_ids=files)
    assert made.id.startswith("vs_")
    assert (made.object, made.name, made.metadata, made.status) == ("vector_store", "Nature", {"k": "v"}, "completed")
    assert (made.created_at, made.last_active_at, made.expires_at) == (1_795_305_600, 1_795_305_600, None)
    assert made.usage_bytes == len(SEA) + len(BEES)
    counts = made.file_counts
    assert (counts.completed, counts.failed, counts.in_progress, counts.cancelled, counts.total) == (2, 0, 0, 0, 2)
    assert await client.vector_stores.retrieve(made.id) == made
    deleted = await client.vector_stores.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "vector_store.deleted")
    assert (await client.files.retrieve(files[0])).id == files[0], "its files stay"


async def test_what_is_not_there_is_not_found(client: AsyncOpenAI) -> None:
    stores = client.vector_stores
    for asking in (
        stores.retrieve("vs_1"),
        stores.delete("vs_1"),
        stores.search("vs_1", query="sea"),
        stores.files.list("vs_1"),
        stores.files.create("vs_1", file_id="file-1"),
        stores.files.retrieve("file-1", vector_store_id="vs_1"),
        stores.files.delete("file-1", vector_store_id="vs_1"),
    ):
        with pytest.raises(openai.NotFoundError, match="Vector store with id 'vs_1' not found"):
            await asking
    store = (await stores.create()).id
    for asking in (
        stores.files.retrieve("file-1", vector_store_id=store),
        stores.files.delete("file-1", vector_store_id=store),
        stores.files.list(store, after="file-1"),
        stores.files.list(store, before="file-1"),
    ):
        with pytest.raises(openai.NotFoundError, match=f"No file found with id 'file-1' in vector store '{store}'"):
            await asking
    for asking in (stores.create(file_ids=["file-1"]), stores.files.create(store, file_id="file-1")):
        with pytest.raises(openai.NotFoundError, match="No such File object: file-1"):
            await asking


async def test_a_store_that_is_not_used_expires() -> None:
    now = 1_000.0
    day = 86_400
    async with Simulator(clock=lambda: now) as url, connect(url, _strict_response_validation=True) as client:
        file = await upload(client, SEA)
        expiry: Any = {"anchor": "last_active_at", "days": 1}
        store = await client.vector_stores.create(file_ids=[file], expires_after=expiry)
        assert store.expires_at == 1_000 + day
        now += day - 1
        assert await found(client, store.id, "sea") == ["notes.txt"]
        assert (await client.vector_stores.retrieve(store.id)).expires_at == 999 + 2 * day, "it was used"
        now += day
        assert (await client.vector_stores.retrieve(store.id)).status == "expired"
        for asking in (
            client.vector_stores.search(store.id, query="sea"),
            client.vector_stores.files.create(store.id, file_id=file),
        ):
            with pytest.raises(openai.BadRequestError, match="is expired"):
                await asking


@pytest.mark.parametrize(
    ("settings", "param", "code"),
    [
        ({"name": 5}, "name", "invalid_type"),
        ({"extra_body": {"newer": 1}}, "newer", "unknown_parameter"),
        ({"file_ids": "file-1"}, "file_ids", "invalid_type"),
        ({"metadata": {"k": "v" * 513}}, "metadata[...]", "string_above_max_length"),
        ({"expires_after": {"anchor": "last_active_at", "days": 366}}, "expires_after.days", "integer_above_max_value"),
        ({"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor", "invalid_value"),
        ({"chunking_strategy": {"type": "static"}}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": {**SMALL, "type": "auto"}}, "chunking_strategy", "invalid_value"),
        (
            {"chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 800}}},
            "chunking_strategy.static.chunk_overlap_tokens",
            "missing_required_parameter",
        ),
        (
            {
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 99, "chunk_overlap_tokens": 0},
                }
            },
            "chunking_strategy.static.max_chunk_size_tokens",
            "integer_below_min_value",
        ),
        (
            {
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 101, "chunk_overlap_tokens": 51},
                }
            },
            "chunking_strategy.static",
            "invalid_value",
        ),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_unfit_stores_are_refused(client: AsyncOpenAI, settings: Any, param: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.vector_stores.create(**settings)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    ("params", "ours"),
    [
        (VectorStoreCreateParams, CreateVectorStore),
        (VectorStoreSearchParams, Search),
        (FileCreateParams, AddFile),
        (FileListParams, ListFiles),
    ],
)
def test_every_parameter_the_client_knows_is_known(params: Any, ours: Any) -> None:
    assert params.__required_keys__ | params.__optional_keys__ == set(ours.__struct_fields__)


async def test_stores_are_listed_page_by_page_the_newest_first(client: AsyncOpenAI) -> None:
    made = [await client.vector_stores.create(name=str(number)) for number in range(5)]
    assert [store async for store in client.vector_stores.list(limit=2)] == made[::-1]
    assert [store async for store in client.vector_stores.list(order="asc", limit=2)] == made
    page = await client.vector_stores.list(before=made[1].id, limit=2)
    assert (page.data, page.has_more) == ([made[3], made[2]], True)
    await client.vector_stores.delete(made[4].id)
    assert (await client.vector_stores.list(limit=1)).data == [made[3]]
    with pytest.raises(openai.NotFoundError):
        await client.vector_stores.list(after="vs_x")


# --- Files ---


async def test_a_file_in_a_store_lives_from_create_to_delete(client: AsyncOpenAI) -> None:
    store = (await client.vector_stores.create()).id
    file = await upload(client, SEA)
    files = client.vector_stores.files
    attributes: dict[str, str | float | bool] = {"topic": "sea", "depth": 3_688.0, "blue": True}
    made = await files.create(store, file_id=file, attributes=attributes, chunking_strategy=SMALL)
    assert (made.id, made.object, made.vector_store_id) == (file, "vector_store.file", store)
    assert (made.status, made.last_error, made.usage_bytes) == ("completed", None, len(SEA))
    assert made.attributes == attributes
    assert made.chunking_strategy is not None
    assert made.chunking_strategy.to_dict() == SMALL
    assert await files.retrieve(file, vector_store_id=store) == made
    again = await files.create_and_poll(file, vector_store_id=store)
    assert (again.attributes, (await client.vector_stores.retrieve(store)).file_counts.total) == ({}, 1), (
        "taken in anew"
    )
    assert again.chunking_strategy is not None
    usual = {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}
    assert again.chunking_strategy.to_dict() == {"type": "static", "static": usual}
    deleted = await files.delete(file, vector_store_id=store)
    assert (deleted.id, deleted.deleted, deleted.object) == (file, True, "vector_store.file.deleted")
    assert await found(client, store, "sea") == []
    assert (await client.files.retrieve(file)).id == file, "it stays uploaded"


async def test_a_file_is_uploaded_and_taken_in_at_one_go(client: AsyncOpenAI) -> None:
    store = (await client.vector_stores.create()).id
    made = await client.vector_stores.files.upload_and_poll(vector_store_id=store, file=("sea.txt", SEA.encode()))
    assert made.status == "completed"
    assert await found(client, store, "How deep is the sea?") == ["sea.txt"]


async def test_a_file_that_comes_later_is_found_too(client: AsyncOpenAI) -> None:
    store = await store_of(client, SEA)
    assert await found(client, store, "honey") == ["0.txt"]
    file = await upload(client, BEES)
    await client.vector_stores.files.create(store, file_id=file)
    assert await found(client, store, "honey") == ["notes.txt", "0.txt"]


async def test_a_deleted_file_is_gone_from_all_stores(client: AsyncOpenAI) -> None:
    file = await upload(client, SEA)
    stores = [(await client.vector_stores.create(file_ids=[file])).id for _ in range(2)]
    assert [await found(client, store, "sea") for store in stores] == [["notes.txt"], ["notes.txt"]]
    await client.files.delete(file)
    assert [await found(client, store, "sea") for store in stores] == [[], []]


@pytest.mark.parametrize(
    ("content", "code"), [(b"%PDF-1.7 \xe2\xe3", "unsupported_file"), (b"", "invalid_file"), (b" \n", "invalid_file")]
)
async def test_what_cannot_be_read_fails(client: AsyncOpenAI, content: bytes, code: str) -> None:
    file = await upload(client, content)
    store = await client.vector_stores.create(file_ids=[file])
    assert (store.file_counts.failed, store.file_counts.completed, store.usage_bytes) == (1, 0, 0)
    made = await client.vector_stores.files.retrieve(file, vector_store_id=store.id)
    assert made.status == "failed"
    assert made.last_error is not None
    assert made.last_error.code == code
    assert await found(client, store.id, "PDF") == []


async def test_files_are_listed_by_pages(client: AsyncOpenAI) -> None:
    ids = [await upload(client, b"" if n == 2 else f"Text {n}") for n in range(5)]
    store = (await client.vector_stores.create(file_ids=ids)).id
    files = client.vector_stores.files

    async def page(**settings: Any) -> tuple[list[int], bool]:
        page = await files.list(store, **settings)
        return [ids.index(file.id) for file in page.data], bool(page.has_more)

    assert [file.id async for file in files.list(store, limit=2)] == ids[::-1]
    assert [file.id async for file in files.list(store, limit=2, order="asc")] == ids
    assert await page(limit=5) == ([4, 3, 2, 1, 0], False)
    assert await page(limit=4, order="asc") == ([0, 1, 2, 3], True)
    assert await page(order="asc", after=ids[1]) == ([2, 3, 4], False)
    assert await page(order="asc", before=ids[3], limit=2) == ([1, 2], True)
    assert await page(order="asc", before=ids[2], limit=2) == ([0, 1], False)
    assert await page(order="asc", before=ids[0]) == ([], False)
    assert await page(order="asc", after=ids[0], before=ids[4], limit=2) == ([1, 2], True)
    assert await page(order="asc", after=ids[4], before=ids[0]) == ([], False)
    assert await page(filter="failed") == ([2], False)
    assert await page(filter="completed", order="asc", after=ids[2]) == ([3, 4], False), "after what it leaves out"
    assert await page(filter="in_progress") == ([], False)


@pytest.mark.parametrize("settings", [{"limit": 0}, {"limit": 101}, {"order": "up"}, {"filter": "x"}, {"limit": "x"}])
async def test_lists_out_of_range_are_refused(client: AsyncOpenAI, settings: Any) -> None:
    store = (await client.vector_stores.create()).id
    with pytest.raises(openai.BadRequestError) as caught:
        await client.vector_stores.files.list(store, **settings)
    assert caught.value.param == next(iter(settings))


@pytest.mark.parametrize(
    "attributes", [{"k": "v" * 513}, {"k" * 65: 1}, {f"k{n}": n for n in range(17)}, {"k": None}, {"k": ["v"]}]
)
async def test_attributes_out_of_range_are_refused(client: AsyncOpenAI, attributes: Any) -> None:
    store = (await client.vector_stores.create()).id
    file = await upload(client, SEA)
    with pytest.raises(openai.BadRequestError, match="attributes"):
        await client.vector_stores.files.create(store, file_id=file, attributes=attributes)


# --- Search ---


async def test_what_fits_best_comes_first(client: AsyncOpenAI) -> None:
    store = await store_of(client, CATS, SEA, BEES)
    page = await client.vector_stores.search(store, query="How deep is the sea on average?")
    assert [hit.filename for hit in page.data] == ["1.txt", "0.txt", "2.txt"]
    best, *others = page.data
    assert [content.to_dict() for content in best.content] == [{"type": "text", "text": SEA}]
    assert (best.attributes, best.file_id.startswith("file-")) == ({"n": 1}, True)
    assert 1 >= best.score > 0
    assert [hit.score for hit in others] == [0, 0]
    assert await found(client, store, "Do bees make honey?", max_num_results=1) == ["2.txt"]
    assert await found(client, store, "flower", max_num_results=1) == ["2.txt"]


async def test_one_query_of_several_is_enough(client: AsyncOpenAI) -> None:
    store = await store_of(client, CATS, SEA, BEES)
    least = {"score_threshold": 0.01}
    assert set(await found(client, store, ["sleeping cats", "honey"], ranking_options=least)) == {"0.txt", "2.txt"}
    page = await client.vector_stores.search(store, query=["cats", "honey"], ranking_options={"score_threshold": 1})
    assert page.data == []
    async with httpx2.AsyncClient(headers={"authorization": "Bearer sk"}) as http:
        url = str(client.base_url.join(f"vector_stores/{store}/search"))
        raw = (await http.post(url, json={"query": "cats", "max_num_results": 1})).json()
    del raw["data"]
    expected = {"object": "vector_store.search_results.page", "search_query": ["cats"], "has_more": False}
    assert raw == {**expected, "next_page": None}


async def test_long_files_are_found_by_their_chunks(client: AsyncOpenAI) -> None:
    sentences = [f"Parcel number {n} lies in room {n * 7}." for n in range(60)]
    file = await upload(client, " ".join(sentences))
    store = (await client.vector_stores.create(file_ids=[file], chunking_strategy=SMALL)).id
    page = await client.vector_stores.search(store, query="Where is parcel 41?")
    assert len(page.data) > 5
    assert "Parcel number 41 lies" in page.data[0].content[0].text


async def test_filters_choose_files(client: AsyncOpenAI) -> None:
    store = await store_of(client, CATS, SEA, BEES)
    later: Any = {"type": "gte", "key": "n", "value": 1}
    nobody: Any = {"type": "eq", "key": "n", "value": "1"}
    assert set(await found(client, store, "sea", filters=later)) == {"1.txt", "2.txt"}
    assert await found(client, store, "sea", filters=nobody) == []
    either: Any = {"type": "or", "filters": [nobody, {"type": "in", "key": "n", "value": [0, 7]}]}
    assert await found(client, store, "sea", filters=either) == ["0.txt"]


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": []}, "query"),
        ({"query": ["sea", ""]}, "query[1]"),
        ({"query": 5}, "query"),
        ({"max_num_results": 0}, "max_num_results"),
        ({"max_num_results": 51}, "max_num_results"),
        ({"ranking_options": {"score_threshold": 1.1}}, "ranking_options.score_threshold"),
        ({"ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
        ({"rewrite_query": "yes"}, "rewrite_query"),
        ({"filters": {"type": "is", "key": "n", "value": 1}}, "filters.type"),
        ({"filters": {"type": "eq", "key": "n"}}, "filters"),
        ({"filters": {"type": "eq", "key": "n", "value": [1]}}, "filters"),
        ({"filters": {"type": "in", "key": "n", "value": 1}}, "filters"),
        ({"filters": {"type": "and", "key": "n", "value": 1}}, "filters"),
        ({"filters": {"type": "or", "filters": [{"type": "eq"}]}}, "filters.filters[0]"),
        ({"filters": {"type": "eq", "key": "n", "value": {}}}, "filters.value"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_unfit_searches_are_refused(client: AsyncOpenAI, settings: Any, param: str) -> None:
    store = (await client.vector_stores.create()).id
    with pytest.raises(openai.BadRequestError) as caught:
        await client.vector_stores.search(store, **{"query": "sea", **settings})
    assert caught.value.param == param


# --- Chunks ---

TEXTS = st.builds(
    lambda some, times: some * times,
    st.text(
        st.sampled_from("aé😀 \n語e\u0301👩‍💻.") | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40
    ),
    st.integers(1, 60),
)
SIZES = st.integers(100, 300).flatmap(
    lambda most: st.builds(
        ChunkSize, max_chunk_size_tokens=st.just(most), chunk_overlap_tokens=st.integers(0, most // 2)
    )
)


@given(TEXTS, SIZES)
def test_chunks_cover_the_text_by_whole_characters_and_overlap_as_asked(text: str, size: ChunkSize) -> None:
    tokenizer = Tokenizer("text-embedding-3-large")
    tokens = tokenizer.encode(text)
    most, overlap = size.max_chunk_size_tokens, size.chunk_overlap_tokens
    chunks = [chunk.text for chunk in cut(text, size)]
    for number, chunk in enumerate(chunks):
        first = number * (most - overlap)
        whole = tokenizer.decode(tokens[first : first + most]).decode(errors="ignore")
        assert chunk.endswith(whole)
        assert len(chunk) - len(whole) <= 1, "no more than the character in which it begins"
    assert text.startswith(chunks[0])
    assert text.endswith(chunks[-1])
    assert (len(chunks) - 1) * (most - overlap) + overlap < max(len(tokens), overlap + 1), "no chunk says nothing new"
    if not overlap:
        assert "".join(chunks) == text


def test_chunks_of_a_plain_text() -> None:
    words = [f" w{n}" for n in range(100)]  # of two tokens each
    text = "".join(words)
    chunks = [chunk.text for chunk in cut(text, ChunkSize(max_chunk_size_tokens=100, chunk_overlap_tokens=20))]
    assert len(Tokenizer("text-embedding-3-large").encode(text)) == 200
    assert chunks == ["".join(words[:50]), "".join(words[40:90]), "".join(words[80:])]


# --- Filters ---

KEYS = st.sampled_from("abc")
VALUES: st.SearchStrategy[Any] = (
    st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([-0.5, 0.0, 1.0, 10**30, 1e300])
    | st.sampled_from(["", "1", "x"])
)
FILTERS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.builds(
        lambda kind, key, value: {"type": kind, "key": key, "value": value},
        st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]),
        KEYS,
        VALUES,
    )
    | st.builds(
        lambda kind, key, values: {"type": kind, "key": key, "value": values},
        st.sampled_from(["in", "nin"]),
        KEYS,
        st.lists(VALUES, max_size=3),
    ),
    lambda inner: st.builds(
        lambda kind, filters: {"type": kind, "filters": filters},
        st.sampled_from(["and", "or"]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)
OPERATORS: dict[str, Any] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def kind_of(value: Any) -> str:
    return "text" if isinstance(value, str) else "truth" if isinstance(value, bool) else "number"


def holds(wanted: dict[str, Any], attributes: dict[str, Any]) -> bool:
    """What a filter means, said again."""
    match wanted["type"]:
        case "and" | "or" as kind:
            each = [holds(one, attributes) for one in wanted["filters"]]
            return all(each) if kind == "and" else any(each)
        case "ne" | "nin" as kind:
            return not holds({**wanted, "type": {"ne": "eq", "nin": "in"}[kind]}, attributes)
        case "in":
            return any(holds({**wanted, "type": "eq", "value": value}, attributes) for value in wanted["value"])
        case kind:
            own, value = attributes.get(wanted["key"]), wanted["value"]
            alike = own is not None and kind_of(own) == kind_of(value)
            ordered = kind == "eq" or kind_of(own) != "truth"
            return alike and ordered and bool(OPERATORS[kind](own, value))


@given(FILTERS, st.dictionaries(KEYS, VALUES))
def test_filters_hold_where_they_say(wanted: dict[str, Any], attributes: dict[str, Any]) -> None:
    assert msgspec.convert(wanted, Filter).holds(attributes) is holds(wanted, attributes)
    assert msgspec.json.decode(msgspec.json.encode(wanted), type=Filter).holds(attributes) is holds(wanted, attributes)


@pytest.mark.parametrize(
    ("kind", "value", "passes"),
    [
        ("eq", 1, True),
        ("eq", 1.0, True),
        ("eq", True, False),
        ("ne", True, True),
        ("in", [True, "1"], False),
        ("nin", [True, "1"], True),
        ("gte", 1, True),
        ("gte", "0", False),
        ("gte", False, False),
    ],
)
def test_truth_is_no_number_nor_is_text(kind: str, value: Any, passes: bool) -> None:
    assert msgspec.convert({"type": kind, "key": "n", "value": value}, Filter).holds({"n": 1}) is passes
    absent = msgspec.convert({"type": kind, "key": "m", "value": value}, Filter).holds({"n": 1})
    assert absent is (kind in {"ne", "nin"})


def test_filters_are_nested_ten_deep_at_most() -> None:
    wanted: dict[str, Any] = {"type": "eq", "key": "a", "value": 1}
    for _ in range(9):
        wanted = {"type": "and", "filters": [wanted]}
    assert msgspec.convert(wanted, Filter).holds({"a": 1})
    with pytest.raises(msgspec.ValidationError, match="more than 10 deep"):
        msgspec.convert(cast("Any", {"type": "or", "filters": [wanted]}), Filter)
