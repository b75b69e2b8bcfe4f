"""What is known of OpenAI's models before they are asked: which take a temperature, and which are gone.

Sources: openai 3.54.0 `types/shared/chat_model.py` (shutdown dates); reasoning guide,
developers.openai.com/api/docs/guides/reasoning (temperature); both 2026-11.
"""

import re
from datetime import UTC, date, datetime

from ..config import DEFAULT_MODEL
from ..errors import RetiredModel

OPENAI_HOST = "api.openai.com"

_REASONING = re.compile(r"(?:ft:|[\w.-]+/)?(?:o\d|gpt-(?:[5-9]|\d\d)|codex)(?!.*-chat)")
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")

_SHUTDOWNS = {
    date(2025, 7, 28): "o1-preview",
    date(2025, 10, 27): "o1-mini",
    date(2026, 2, 17): "chatgpt-4o-latest",
    date(2026, 5, 7): "gpt-4o-audio-preview gpt-4o-mini-audio-preview",
    date(2026, 7, 23): (
        "gpt-5.1-codex gpt-5.1-chat-latest gpt-5-chat-latest gpt-4o-search-preview gpt-4o-mini-search-preview"
    ),
    date(2026, 8, 10): "gpt-5.3-chat-latest gpt-5.2-chat-latest",
    date(2026, 10, 23): (
        "gpt-4.1-nano o4-mini o3-mini o1 gpt-4o-2024-05-13 gpt-4-turbo gpt-4-1106-preview gpt-4 gpt-4-0613 "
        "gpt-3.5-turbo gpt-3.5-turbo-0125"
    ),
    date(2026, 12, 11): "gpt-5 gpt-5-mini gpt-5-nano o3 o3-pro",
    date(2027, 1, 14): "gpt-4.1 gpt-4.1-mini gpt-4o gpt-4o-mini",
    date(2027, 1, 20): "gpt-audio-mini",
    date(2027, 4, 1): "gpt-5.4-nano gpt-5.1",
}
_SHUTDOWN_OF = {model: day for day, models in _SHUTDOWNS.items() for model in models.split()}


def takes_temperature(model: str, effort: str | None = None) -> bool:
    """Whether a model accepts `temperature`: reasoning models refuse it, unless they are told not to reason.

    So do their fine-tuned versions (`ft:gpt-5…`), and they do under the names that routers give them (`openai/gpt-5…`).
    """
    return effort == "none" or not _REASONING.match(model)


def check_not_retired(model: str, host: str, today: date | None = None) -> None:
    """Name a model that has been shut down, before a request to it leaves. Other servers may have models of that name.

    Raises:
        RetiredModel: OpenAI has shut it down.
    """
    if host != OPENAI_HOST:
        return
    shutdown = _SHUTDOWN_OF.get(model) or _SHUTDOWN_OF.get(_DATED.sub("", model))
    if shutdown is not None and shutdown <= (today or datetime.now(UTC).date()):
        raise RetiredModel(model, shutdown, DEFAULT_MODEL)
