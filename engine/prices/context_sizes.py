"""Context sizes of models: the upper bound of requests that have no other."""

import functools
from collections.abc import Mapping

from ..models.names import base_model, undated
from .overlay import provider_id
from .price_book import PriceBook


@functools.lru_cache(4_096)
def context_size(provider: str, model: str) -> int | None:
    """Find the upper bound of the tokens that a model reads and writes in one turn; None if it is not known.

    The bound is a twentieth more than is listed, since lists round down: gpt-4.1, listed with 1,000,000, has 1,047,576
    (OpenAI's page of the model, 2025-04). A dated version has the size of its undated name, a fine-tuned model that of
    the one it is based on.

    The first call takes the better part of a second, like the first price of a `PriceBook`: make it in a worker thread.

    Args:
        provider: As in events, such as `openai`.
        model: As requested.
    """
    base = base_model(model)
    sizes, id_ = _listed(), provider_id(provider)
    size = sizes.get((id_, base)) or sizes.get((id_, undated(base)))
    return None if size is None else size + size // 20


@functools.cache
def _listed() -> Mapping[tuple[str, str], int]:
    return {(each.provider, each.model): each.context_window for each in PriceBook().models() if each.context_window}
