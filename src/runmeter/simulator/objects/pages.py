"""Pages of lists, as the API cuts them: by the ids of their neighbours.

Source: openai 3.54.0, `types/file_list_params.py`, `types/vector_store_list_params.py`,
`types/vector_stores/file_list_params.py`, `types/conversations/item_list_params.py` (2026-11).
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from ..errors import ApiError

T = TypeVar("T")


class PageParams(msgspec.Struct, kw_only=True):
    """The URL's parameters of a list."""

    after: str | None = None
    before: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"


def write_page(
    items: Sequence[T],
    params: PageParams,
    *,
    id_of: Callable[[T], str],
    wire: Callable[[T], Any],
    missing: Callable[[str], ApiError],
    wanted: Callable[[T], bool] = lambda _: True,
) -> bytes:
    """Write one page of a list as JSON.

    Args:
        items: All there are, the oldest first.
        params: Which of them.
        id_of: Gives the id of one.
        wire: Gives what is sent of one.
        missing: Makes the error for an id that none of them has.
        wanted: Tells whether one is to be listed at all.

    Raises:
        ApiError: `after` or `before` is none of their ids.
    """
    ordered = items if params.order == "asc" else items[::-1]
    places = {id_of(item): place for place, item in enumerate(ordered)}
    for item_id in filter(None, (params.after, params.before)):
        if item_id not in places:
            raise missing(item_id)
    first = places[params.after] + 1 if params.after else 0
    end = places[params.before] if params.before else len(ordered)
    between = [item for item in ordered[first:end] if wanted(item)]
    backwards = params.before and not params.after  # the page that ends just before `before`
    page = between[-params.limit :] if backwards else between[: params.limit]
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [wire(item) for item in page],
            "first_id": id_of(page[0]) if page else None,
            "last_id": id_of(page[-1]) if page else None,
            "has_more": len(between) > len(page),
        }
    )
