"""Buckets of time, as the organization's usage and costs come in: whole ones, a page of them at once.

Sources: openai 3.54.0, `types/admin/organization/usage_completions_params.py`, `usage_embeddings_params.py` and
`usage_costs_params.py` (2026-11). How the real service cuts buckets at a start that is not theirs is not published:
here each is whole, and the first holds the start.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError

Width: TypeAlias = Literal["1m", "1h", "1d"]
SECONDS: Mapping[str, int] = {"1m": 60, "1h": 3_600, "1d": 86_400}
"""Lengths of buckets in seconds."""
USAGE_LIMITS: Mapping[str, tuple[int, int]] = {"1m": (60, 1_440), "1h": (24, 168), "1d": (7, 31)}
"""Number of buckets in a page of usage: by default, and at most."""
COST_LIMITS: Mapping[str, tuple[int, int]] = {"1d": (7, 180)}
"""Number of buckets in a page of costs: by default, and at most."""


class BucketParams(msgspec.Struct, frozen=True, kw_only=True):
    """The URL's parameters that say which buckets are asked for."""

    start_time: int
    """Seconds since the Unix epoch."""
    end_time: int | None = None
    """Seconds since the Unix epoch, exclusive; by default the second that is now is the last."""
    bucket_width: Width = "1d"
    limit: int | None = None
    page: str | None = None


def write_buckets(
    params: BucketParams,
    limits: Mapping[str, tuple[int, int]],
    now: float,
    results: Callable[[int, int], Sequence[Any]],
) -> bytes:
    """Write one page of buckets as JSON.

    Args:
        params: The buckets asked for.
        limits: How many there may be on a page, by width.
        now: Seconds since the Unix epoch.
        results: Gives the results between two points in time, the second exclusive.

    Raises:
        ApiError: 400: a width, limit or page that there is not, or an end before the start.
    """
    step, limit = SECONDS[params.bucket_width], _limit(params, limits)
    end = int(now) + 1 if params.end_time is None else params.end_time
    if end <= params.start_time and params.end_time is not None:
        raise ApiError(400, "Invalid 'end_time': must be after 'start_time'.", param="end_time")
    first = params.start_time if params.page is None else _read_page(params.page)
    starts = range(first // step * step, end, step)
    page = starts[:limit]
    return msgspec.json.Encoder(decimal_format="number").encode(
        {
            "object": "page",
            "data": [_bucket(start, start + step, results) for start in page],
            "has_more": len(starts) > len(page),
            "next_page": _write_page(page[-1] + step) if len(starts) > len(page) else None,
        }
    )


def _bucket(start: int, end: int, results: Callable[[int, int], Sequence[Any]]) -> dict[str, Any]:
    return {"object": "bucket", "start_time": start, "end_time": end, "results": results(start, end)}


def _limit(params: BucketParams, limits: Mapping[str, tuple[int, int]]) -> int:
    if params.bucket_width not in limits:
        listed = ", ".join(f"'{width}'" for width in limits)
        message = f"Invalid value: '{params.bucket_width}'. Supported values are: {listed}."
        raise ApiError(400, message, param="bucket_width", code="invalid_value")
    usual, most = limits[params.bucket_width]
    limit = usual if params.limit is None else params.limit
    if not 1 <= limit <= most:
        message = f"Invalid 'limit': must be between 1 and {most} with buckets of {params.bucket_width}."
        raise ApiError(400, message, param="limit")
    return limit


def _write_page(start: int) -> str:
    return f"page_{b64encode(start.to_bytes(8)).decode()}"


def _read_page(page: str) -> int:
    try:
        return int.from_bytes(b64decode(page.removeprefix("page_"), validate=True))
    except ValueError as error:
        raise ApiError(400, f"Invalid 'page': '{page}' is not a page of this list.", param="page") from error
