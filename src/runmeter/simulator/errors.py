"""Errors as the API sends them: a status code and `{"error": {"message", "type", "param", "code"}}`."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T")


class ApiError(Exception):
    """The request is refused, or fails."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers or {}

    def details(self) -> dict[str, str | None]:
        """What the body says under `error`."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    def body(self) -> bytes:
        """The body as JSON."""
        return msgspec.json.encode({"error": self.details()})


def decode(body: bytes, shape: type[T]) -> T:
    """Read a request body. Fields that the shape does not have are ignored.

    Raises:
        ApiError: 400: it is not JSON, or has not this shape.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error)) from error
    except msgspec.DecodeError as error:
        message = f"We could not parse the JSON body of your request. ({error})"
        raise ApiError(400, message) from error


def _misshapen(complaint: str) -> ApiError:
    """Turn msgspec's ``Expected `str`, got `int` - at `$.input[0].role` `` into the API's words."""
    what, _, where = complaint.partition(" - at ")
    path = where.strip("`").removeprefix("$").removeprefix(".")
    if what.startswith("Object missing required field"):
        name = ".".join(filter(None, (path, what.split("`")[1])))
        return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    return ApiError(400, f"Invalid type for '{path}': {what}.", param=path or None, code="invalid_type")
