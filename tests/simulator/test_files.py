"""The Files API of the simulator, through the real client, and the forms in which files come."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types import FileCreateParams
from simulator_support import connect

from runmeter.simulator import Fault, Simulator
from runmeter.simulator.endpoints import files
from runmeter.simulator.endpoints.files import CreateFile
from runmeter.simulator.errors import ApiError
from runmeter.simulator.http.forms import FormField, read_form

FILE = ("notes.txt", b"The sea is grey.\n")


@pytest.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"authorization": "Bearer sk"}
    async with httpx2.AsyncClient(headers=headers, base_url=simulator.url) as client:
        yield client


async def test_a_file_lives_from_upload_to_delete(client: AsyncOpenAI) -> None:
    made = await client.files.create(file=FILE, purpose="user_data")
    assert made.id.startswith("file-")
    assert (made.object, made.filename, made.purpose, made.status) == ("file", "notes.txt", "user_data", "processed")
    assert (made.bytes, made.created_at, made.expires_at) == (17, 1_795_305_600, None)
    assert await client.files.retrieve(made.id) == made
    assert await client.files.wait_for_processing(made.id) == made
    answer = await client.files.content(made.id)
    assert answer.content == FILE[1]
    assert answer.response.headers["content-type"] == "application/octet-stream"
    deleted = await client.files.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "file")
    for asking in (client.files.retrieve(made.id), client.files.content(made.id), client.files.delete(made.id)):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {made.id}"):
            await asking


async def test_files_are_listed_page_by_page_the_newest_first(client: AsyncOpenAI) -> None:
    purposes: list[Any] = ["user_data", "vision", "user_data", "user_data"]
    made = [await client.files.create(file=FILE, purpose=purpose) for purpose in purposes]
    assert [file async for file in client.files.list()] == made[::-1]
    assert [file async for file in client.files.list(purpose="user_data", order="asc")] == [made[0], *made[2:]]
    page = await client.files.list(limit=2)
    assert (page.data, page.has_more) == ([made[3], made[2]], True)
    assert [file async for file in client.files.list(limit=2)] == made[::-1]
    assert (await client.files.list(after=made[0].id)).data == []
    with pytest.raises(openai.NotFoundError, match="No such File object: file-x"):
        await client.files.list(after="file-x")
    for limit in (0, 10_001):
        with pytest.raises(openai.BadRequestError):
            await client.files.list(limit=limit)


@pytest.mark.parametrize("content", [b"", b"\r\n", b"\r\n--", bytes(range(256)) * 1_000], ids=len)
async def test_content_comes_back_to_the_byte(client: AsyncOpenAI, content: bytes) -> None:
    made = await client.files.create(file=("caf\u00e9 \u201c1\u201d.bin", content), purpose="vision")
    assert (made.filename, made.bytes) == ("caf\u00e9 \u201c1\u201d.bin", len(content))
    assert (await client.files.content(made.id)).content == content


async def test_what_is_for_assistants_cannot_be_had_back(client: AsyncOpenAI) -> None:
    made = await client.files.create(file=FILE, purpose="assistants")
    with pytest.raises(openai.BadRequestError, match="Not allowed to download files of purpose: assistants"):
        await client.files.content(made.id)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({"purpose": "user_data", "expires_after": {"anchor": "created_at", "seconds": 3_600}}, 3_600),
        ({"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 4_000}}, 4_000),
        ({"purpose": "batch"}, 2_592_000),
    ],
)
async def test_files_expire(settings: Any, seconds: int) -> None:
    now = 1_000.0
    async with Simulator(clock=lambda: now) as url, connect(url, _strict_response_validation=True) as client:
        made = await client.files.create(file=FILE, **settings)
        assert (made.created_at, made.expires_at) == (1_000, 1_000 + seconds)
        now += seconds - 1
        assert await client.files.retrieve(made.id) == made
        now += 1
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(made.id)


@pytest.mark.parametrize(
    ("settings", "param", "code"),
    [
        ({"purpose": "fun"}, "purpose", "invalid_value"),
        ({"extra_body": {"newer": "1"}}, "newer", "unknown_parameter"),
        ({"expires_after": {"seconds": 3_600}}, "expires_after.anchor", "missing_required_parameter"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds", "missing_required_parameter"),
        ({"expires_after": {"anchor": "created_at", "seconds": 5}}, "expires_after.seconds", "integer_below_min_value"),
        (
            {"expires_after": {"anchor": "created_at", "seconds": 2_592_001}},
            "expires_after.seconds",
            "integer_above_max_value",
        ),
        ({"expires_after": {"anchor": "created_at", "seconds": "soon"}}, "expires_after.seconds", "invalid_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": "1" * 5_000}}, "expires_after.seconds", "invalid_value"),
        ({"expires_after": cast("Any", "soon")}, "expires_after", "invalid_type"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_unfit_settings_are_refused(client: AsyncOpenAI, settings: Any, param: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.files.create(file=FILE, **{"purpose": "user_data", **settings})
    assert (caught.value.param, caught.value.code) == (param, code)


async def test_a_file_too_large_is_refused(client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 16)
    with pytest.raises(openai.APIStatusError, match="at most 16 bytes, not 17") as caught:
        await client.files.create(file=FILE, purpose="user_data")
    assert (caught.value.status_code, caught.value.param) == (413, "file")


async def test_only_a_form_with_a_file_is_taken(http: httpx2.AsyncClient) -> None:
    purpose = {"purpose": "user_data"}
    for sent in (
        await http.post("/files"),
        await http.post("/files", json=purpose),
        await http.post("/files", data=purpose),
        await http.post("/files", files={"file": FILE}),
        await http.post("/files", data=purpose, files={"fil": FILE}),
        await http.post("/files", data={**purpose, "file": "text"}, files={"file[x]": FILE}),
        await http.post("/files", data={"expires_after": "x", "expires_after[seconds]": "1"}, files={"file": FILE}),
    ):
        assert (sent.status_code, sent.json()["error"]["type"]) == (400, "invalid_request_error")
    assert (await http.post("/files", data=purpose, files={"file": FILE})).status_code == 200


def test_every_parameter_the_client_knows_is_known() -> None:
    known = FileCreateParams.__required_keys__ | FileCreateParams.__optional_keys__
    assert known == {*CreateFile.__struct_fields__, "file"}


async def test_requests_are_counted_and_faults_hit_them(simulator: Simulator) -> None:
    simulator.inject(Fault("server_error", endpoint="/files"))
    async with connect(simulator.url, max_retries=1) as client:
        await client.files.create(file=FILE, purpose="user_data")
    assert simulator.statistics().requests == {"POST /files": 2}
    assert simulator.statistics().usage == {}


# --- Forms ---

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="%") | st.sampled_from('\r\n"\\;= '))


@given(st.dictionaries(NAMES.filter(bool), st.tuples(NAMES.filter(bool), st.binary()), min_size=1, max_size=5))
def test_any_files_come_through_a_form(given_files: dict[str, tuple[str, bytes]]) -> None:
    request = httpx2.Request("POST", "http://127.0.0.1/", files=given_files)
    form = read_form(request.read(), request.headers["content-type"])
    assert form == {name: FormField(content, filename) for name, (filename, content) in given_files.items()}


@given(st.dictionaries(st.from_regex(r"[a-z_\[\]]+", fullmatch=True), st.text(), min_size=1, max_size=5))
def test_texts_come_without_a_filename(fields: dict[str, str]) -> None:
    request = httpx2.Request("POST", "http://127.0.0.1/", data=fields, files={"FILE": FILE})
    form = read_form(request.read(), request.headers["content-type"])
    assert form.pop("FILE") == FormField(FILE[1], FILE[0])
    assert form == {name: FormField(text.encode()) for name, text in fields.items()}


FRAGMENTS = st.sampled_from(
    [
        b"--x",
        b"\r\n",
        b"\r\n\r\n",
        b"--",
        b"Content-Disposition: form-data",
        b'; name="',
        b"; filename=",
        b'"',
        b"a",
        b"\\",
    ]
)


@given(
    st.lists(FRAGMENTS | st.binary(max_size=3)).map(b"".join), st.text() | st.just("multipart/form-data; boundary=x")
)
def test_what_is_no_form_is_refused_and_nothing_else_happens(body: bytes, content_type: str) -> None:
    with suppress(ApiError):
        for name, part in read_form(body, content_type).items():
            assert name
            assert part.content in body


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b'Content-Disposition: form-data; name="f"', FormField(b"1")),
        (b'content-disposition:form-data;name=f;filename="a;b.txt"', FormField(b"1", "a;b.txt")),
        (b'Content-Type: text/plain\r\nContent-Disposition: form-data; filename="a"; name="f"', FormField(b"1", "a")),
        (b'Content-Disposition: form-data; name="f"; filename="; name=\\"g\\""', FormField(b"1", '; name="g"')),
        (b'Content-Disposition: form-data; name="f"; filename="%22C:\\x%22%41"', FormField(b"1", '"C:\\x"%41')),
        (b'Content-Disposition: form-data; name="f"; filename=""', FormField(b"1", "")),
        (b'Content-Disposition: form-data; name="f"; filename="\xff"', FormField(b"1", "\ufffd")),
    ],
)
@pytest.mark.parametrize("boundary", ["x y", "'()+_,-./:=?", "\xe9"])
def test_heads_are_read_as_clients_write_them(head: bytes, part: FormField, boundary: str) -> None:
    edge = b"--" + boundary.encode("latin-1")  # as servers decode headers
    body = b"preamble\r\n" + edge + b"\r\n" + head + b"\r\n\r\n1\r\n" + edge + b"--\r\nepilogue"
    assert read_form(body, f'Multipart/Form-Data; charset=utf-8; boundary="{boundary}"') == {"f": part}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x",
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n1',
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n--x',
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n--x--',
        b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
        b"--x\r\n\r\n1\r\n--x--",
        b'--x\r\nContent-Disposition: attachment; name="f"\r\n\r\n1\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n' * 101 + b"--x--",
    ],
    ids=lambda body: repr(body)[:40],
)
def test_broken_forms_are_refused(body: bytes) -> None:
    with pytest.raises(ApiError, match="could not parse the body"):
        read_form(body, "multipart/form-data; boundary=x")
