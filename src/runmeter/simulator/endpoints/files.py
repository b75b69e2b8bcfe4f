"""The Files API: upload, list, retrieve, download, delete.

Source of the shapes: openai 3.54.0, `types/file_object.py`, `types/file_create_params.py` (2026-11).
"""

from typing import Annotated, Any, Literal

import msgspec

from ..errors import ApiError, convert
from ..http.forms import FormField, read_form
from ..objects.pages import PageParams, write_page
from ..objects.upload import LARGEST, FileObject, Upload
from ..service import Answer, Call, Service

_LIFETIMES = {"batch": 2_592_000}
"""Seconds, where the request does not say: files of other purposes stay until they are deleted."""


class FileExpiry(msgspec.Struct, forbid_unknown_fields=True):
    """The time at which a file is to be forgotten."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, msgspec.Meta(ge=3_600, le=2_592_000)]


class CreateFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of POST /files, but for the file itself."""

    purpose: Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
    expires_after: FileExpiry | None = None


class ListUploads(PageParams, kw_only=True):
    """The query of GET /files."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10_000
    purpose: str | None = None


class Content(bytes):
    """The content of a file: the only answer that is neither JSON nor a stream."""


def create(service: Service, call: Call) -> Answer:
    """Answer POST /files, and keep the file."""
    form = read_form(call.body, call.content_type)
    file = form.pop("file", None)
    if file is None or file.filename is None:
        raise ApiError(400, "Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
    if len(file.content) > LARGEST:
        message = f"This simulator takes files of at most {LARGEST} bytes, not {len(file.content)}."
        raise ApiError(413, message, param="file")
    request = convert(_fields(form), CreateFile, "", strict=False)
    created = int(service.clock())
    lifetime = request.expires_after.seconds if request.expires_after else _LIFETIMES.get(request.purpose)
    description = FileObject(
        id=service.new_id("file-"),
        bytes=len(file.content),
        created_at=created,
        filename=file.filename,
        purpose=request.purpose,
        expires_at=None if lifetime is None else created + lifetime,
    )
    service.uploads.put(description.id, Upload(description, file.content))
    return msgspec.json.encode(description)


def list_uploads(service: Service, call: Call) -> Answer:
    """Answer GET /files with a page: the newest first, unless asked otherwise."""
    request = convert(dict(call.query), ListUploads, "", strict=False)
    now = service.clock()
    return write_page(
        [upload.description for upload in service.uploads.values() if not upload.description.expired(now)],
        request,
        id_of=lambda file: file.id,
        wire=lambda file: file,
        missing=_no_upload,
        wanted=lambda file: request.purpose in {None, file.purpose},
    )


def retrieve(service: Service, call: Call) -> Answer:
    """Answer GET /files/{id} with what is known of the file."""
    return msgspec.json.encode(find_upload(service, call.id).description)


def content(service: Service, call: Call) -> Answer:
    """Answer GET /files/{id}/content with the file; what is for assistants is refused, as in the real service."""
    upload = find_upload(service, call.id)
    if upload.description.purpose == "assistants":
        raise ApiError(400, "Not allowed to download files of purpose: assistants")
    return Content(upload.content)


def delete(service: Service, call: Call) -> Answer:
    """Answer DELETE /files/{id}, and take the file from all vector stores too."""
    find_upload(service, call.id)
    service.uploads.delete(call.id)
    for store in service.vector_stores.values():
        store.remove(call.id)
    return msgspec.json.encode({"id": call.id, "object": "file", "deleted": True})


def find_upload(service: Service, file_id: str) -> Upload:
    """Find a file that was uploaded, and neither deleted nor forgotten.

    Raises:
        ApiError: 404: there is none.
    """
    upload = service.uploads.get(file_id)
    if upload is None or upload.description.expired(service.clock()):
        raise _no_upload(file_id)
    return upload


def _no_upload(file_id: str) -> ApiError:
    """Make the error of a file that there is not (its words: danny-avila/LibreChat#2632)."""
    return ApiError(404, f"No such File object: {file_id}", param="id")


def _fields(form: dict[str, FormField]) -> dict[str, Any]:
    """Read a form's fields: `expires_after[seconds]` is how it says `{"expires_after": {"seconds": …}}`."""
    fields: dict[str, Any] = {}
    for name, part in form.items():
        outer, _, inner = name.removesuffix("]").partition("[")
        text = part.content.decode(errors="replace")
        if not inner:
            fields[name] = text
        elif isinstance(group := fields.setdefault(outer, {}), dict):  # it may have been given as a text, too
            group[inner] = text
    return fields
