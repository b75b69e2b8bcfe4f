"""Errors as the API sends them: a status code and `{"error": {"message", "type", "param", "code"}}`."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_RANGE = re.compile(r"Expected `(int|float)` (>=|<=) ")


class ApiError(Exception):
    """An error of the API: the request is refused, or fails."""

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
        """Write what the body says under `error`."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    def body(self) -> bytes:
        """Write the error's body as JSON."""
        return msgspec.json.encode({"error": self.details()})


def decode(body: bytes, shape: type[T]) -> T:
    """Read a request body. Whether fields that the shape does not have are ignored or refused, the shape says.

    Raises:
        ApiError: 400: it is not JSON, or has not this shape.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"We could not parse the JSON body of your request. ({error})"
        raise ApiError(400, message) from error


def convert(value: Any, shape: type[T], at: str, *, strict: bool = True) -> T:
    """Read a part of a request body, `at` this path. Unless `strict`, numbers may come as text.

    Raises:
        ApiError: 400: it has not this shape.
    """
    try:
        return msgspec.convert(value, shape, strict=strict)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error), at) from error


def context_length_exceeded(limit: int = 128_000, tokens: int = 131_072, *, chat: bool) -> ApiError:
    """Make the error of an input that is too long for its model, which only Chat Completions tells how long.

    As reported: ChatGPTNextWeb/NextChat#3195 (Chat Completions, 2023), dyad-sh/dyad#1672 (Responses API, 2025).
    """
    message = "Your input exceeds the context window of this model. Please adjust your input and try again."
    if chat:
        message = (
            f"This model's maximum context length is {limit} tokens. However, your messages resulted in {tokens} "
            "tokens. Please reduce the length of the messages."
        )
    return ApiError(400, message, param="messages" if chat else "input", code="context_length_exceeded")


def missing_parameter(name: str) -> ApiError:
    """Make the error of a parameter that must be there, and is not."""
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def unknown_parameter(name: str) -> ApiError:
    """Make the error of a parameter that there is not."""
    return ApiError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def unsupported_kind(kind: Any, param: str, supported: Iterable[str]) -> ApiError:
    """Make the error of a kind of thing that there is not, or that is not told, where only some kinds are supported."""
    if kind is None:
        return missing_parameter(param)
    listed = ", ".join(f"'{each}'" for each in supported)
    message = f"Invalid value: '{kind}'. Supported values are: {listed}."
    return ApiError(400, message, param=param, code="invalid_value")


def not_simulated(what: str, param: str | None = None) -> ApiError:
    """Make the error for what the real service does and this one does not."""
    return ApiError(400, f"not simulated: {what}", param=param, code="not_simulated")


def _misshapen(complaint: str, at: str = "") -> ApiError:
    """Turn msgspec's ``Expected `str`, got `int` - at `$.input[0].role` `` into the API's words and codes."""
    what, _, where = complaint.partition(" - at ")
    path = (at + where.strip("`").removeprefix("$")).removeprefix(".")
    if what.startswith("Object missing required field"):
        return missing_parameter(".".join(filter(None, (path, what.split("`")[1]))))
    if what.startswith("Object contains unknown field"):
        return unknown_parameter(".".join(filter(None, (path, what.split("`")[1]))))
    if beyond := _RANGE.match(what):
        kind = "integer" if beyond[1] == "int" else "decimal"
        code = f"{kind}_below_min_value" if beyond[2] == ">=" else f"{kind}_above_max_value"
    elif "of length" in what:
        longer = "of length <=" in what
        kind = "array" if what.startswith("Expected `array`") else "string"
        code = f"{kind}_above_max_length" if longer else {"array": "empty_array"}.get(kind, "invalid_value")
    else:
        code = "invalid_type" if what.startswith("Expected") and "matching" not in what else "invalid_value"
    message = f"Invalid type for '{path}': {what}." if code == "invalid_type" else f"Invalid '{path}': {what}."
    return ApiError(400, message, param=path or None, code=code)
