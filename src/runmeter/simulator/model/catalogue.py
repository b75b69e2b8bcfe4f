"""The models there are, and the retired ones: enough of each to answer, refuse and bill as the API does.

Sources, 2026-11: openai 3.54.0 `types/shared/chat_model.py` (names) and `types/shared/reasoning.py`; genai-prices 0.2.3
(release of gpt-6.1-sol, windows); `engine/models/models.toml` (shutdown dates); OpenAI's pages of gpt-4o, gpt-4.1, o3
and gpt-5 (windows and longest answers, 2025); pydantic-ai 2.68 `profiles/openai.py` (efforts, tried on the API, 2026);
anomalyco/models.dev#851 (input up to gpt-5.2: 272,000 of 400,000). What is not published, the release dates of gpt-5.6
and the first gpt-6, the default efforts from gpt-5.5 on and the longest answers from gpt-5.4 on, is approximate.
"""

from datetime import UTC, date, datetime

import msgspec

from runmeter.engine import retirements

from ..errors import ApiError


class Model(msgspec.Struct, frozen=True):
    """A model that is served."""

    id: str
    released: date
    version: tuple[int, int] = (0, 0)
    """(5, 6) for the gpt-5.6 models."""
    effort: str | None = None
    """The reasoning effort where a request names none. None: the model does not reason."""
    can_skip_reasoning: bool = False
    """Effort `none` is accepted."""
    efforts: str = ""
    """The efforts it accepts, where it does not accept all; `none` is told by `can_skip_reasoning`."""
    window: int = 128_000
    """Upper bound on the tokens that it reads and writes in one turn."""
    most_output: int = 16_384
    """Upper bound on the tokens that it writes in one turn."""
    dimensions: int = 0
    """The length of its vectors: for embedding models only."""

    @property
    def shutdown(self) -> date | None:
        """The day on which it is shut down, if that was announced."""
        retirement = retirements.find(self.id)
        return retirement.shutdown if retirement else None

    @property
    def created(self) -> int:
        """Seconds since the Unix epoch."""
        return int(datetime.combine(self.released, datetime.min.time(), UTC).timestamp())

    @property
    def most_input(self) -> int:
        """Upper bound on the tokens that it reads: from gpt-5 on, room is kept for the longest answer."""
        return self.window - self.most_output if self.version >= (5, 0) else self.window

    @property
    def takes_stop(self) -> bool:
        """True if a request may say where the answer is to end."""
        return self.effort is None or self.version >= (5, 5)

    def accepts(self, effort: str) -> bool:
        """Tell whether the model can think with this effort."""
        return not self.efforts or effort == "none" or effort in self.efforts.split()

    @property
    def reports_cache_writes(self) -> bool:
        """True from gpt-5.6 on: cache writes are billed."""
        return self.version >= (5, 6)

    @property
    def separates_tools_from_reasoning(self) -> bool:
        """True from gpt-5.4 on: Chat Completions takes function tools only with effort `none`."""
        return self.version >= (5, 4)

    @property
    def labels_phases(self) -> bool:
        """True if its messages say whether they are commentary or the final answer."""
        return self.version >= (5, 4)


def _chat(
    version: tuple[int, int],
    released: str,
    names: str,
    effort: str | None,
    *,
    skip: bool = False,
    efforts: str = "",
    window: int = 1_050_000,
    output: int = 128_000,
) -> list[Model]:
    day = date.fromisoformat(released)
    return [Model(name, day, version, effort, skip, efforts, window, output) for name in names.split()]


def _embedding(name: str, released: str, dimensions: int) -> Model:
    return Model(name, date.fromisoformat(released), dimensions=dimensions)


_FROM_LOW = "low medium high xhigh max"
_TO_HIGH = "minimal low medium high"
_O_SERIES = "low medium high"
_KNOWN = [
    *_chat((6, 2), "2026-11-17", "gpt-6.2-astra gpt-6.2-sol", "medium", efforts=_FROM_LOW),
    *_chat((6, 1), "2026-10-26", "gpt-6.1-terra", "medium", skip=True),
    *_chat((6, 1), "2026-09-29", "gpt-6.1-sol", "medium", efforts=_FROM_LOW),
    *_chat((6, 0), "2026-09-01", "gpt-6-astra", "medium", efforts=_FROM_LOW),
    *_chat((6, 0), "2026-09-01", "gpt-6-sol gpt-6-luna", "medium", skip=True),
    *_chat((5, 6), "2026-06-26", "gpt-5.6 gpt-5.6-sol gpt-5.6-terra gpt-5.6-luna", "medium", skip=True),
    *_chat((5, 5), "2026-04-23", "gpt-5.5 gpt-5.5-2026-04-23", "medium", skip=True),
    *_chat((5, 4), "2026-03-17", "gpt-5.4", "none", skip=True),
    *_chat((5, 4), "2026-03-17", "gpt-5.4-mini gpt-5.4-mini-2026-03-17", "none", skip=True, window=400_000),
    *_chat((5, 4), "2026-03-17", "gpt-5.4-nano gpt-5.4-nano-2026-03-17", "none", skip=True, window=400_000),
    *_chat((5, 2), "2025-12-11", "gpt-5.2 gpt-5.2-2025-12-11", "none", skip=True, window=400_000),
    *_chat((5, 1), "2025-11-13", "gpt-5.1 gpt-5.1-2025-11-13", "none", skip=True, window=400_000),
    *_chat((5, 0), "2025-08-07", "gpt-5 gpt-5-mini gpt-5-nano", "medium", efforts=_TO_HIGH, window=400_000),
    *_chat((5, 0), "2025-08-07", "gpt-5-2025-08-07 gpt-5-mini-2025-08-07", "medium", efforts=_TO_HIGH, window=400_000),
    *_chat((3, 0), "2025-04-16", "o3 o3-2025-04-16", "medium", efforts=_O_SERIES, window=200_000, output=100_000),
    *_chat((4, 1), "2025-04-14", "gpt-4.1 gpt-4.1-mini gpt-4.1-2025-04-14", None, window=1_047_576, output=32_768),
    *_chat((4, 0), "2024-11-20", "gpt-4o gpt-4o-2024-11-20", None, window=128_000, output=16_384),
    *_chat((4, 0), "2024-07-18", "gpt-4o-mini gpt-4o-mini-2024-07-18", None, window=128_000, output=16_384),
    _embedding("text-embedding-3-small", "2024-01-25", 1536),
    _embedding("text-embedding-3-large", "2024-01-25", 3072),
    _embedding("text-embedding-ada-002", "2022-12-15", 1536),
]
MODELS = {model.id: model for model in _KNOWN}


def is_retired(name: str) -> bool:
    """Tell whether a model had been shut down when the table of models was last checked.

    No clock is asked, so that what was served yesterday is served tomorrow.
    """
    retirement = retirements.find(name)
    return retirement is not None and retirement.is_retired(retirements.table().checked)


def find_model(name: str, *, embeds: bool = False) -> Model:
    """Find a model by its name.

    Raises:
        ApiError: 404 `model_not_found`: retired, never heard of, or of the wrong kind.
    """
    if is_retired(name):
        where = "https://developers.openai.com/api/docs/deprecations"
        message = f"The model `{name}` has been deprecated, learn more here: {where}"
        raise ApiError(404, message, code="model_not_found")
    model = MODELS.get(name)
    if model is None or bool(model.dimensions) is not embeds:
        message = f"The model `{name}` does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found")
    return model
