"""Facts about OpenAI's models known before they are asked: which take a temperature, and which are gone.

Sources: the engine's table of shut down models (`engine/models/models.toml`); reasoning guide,
developers.openai.com/api/docs/guides/reasoning (temperature), 2026-11; openai 3.54.0,
`types/model.py` (`shutdown_date`).
"""

import logging
import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from runmeter.engine import current_execution, retirements

from ..config import DEFAULT_MODEL
from ..errors import RetiredModel
from .servers import is_openai

if TYPE_CHECKING:
    from openai import AsyncOpenAI

NOTICE_KIND = "model_retirement"
NEXT_MODEL = "gpt-6.1-terra"
"""The model to use instead of `DEFAULT_MODEL` once that is shut down: the next larger one."""
RETRIEVE_TIMEOUT = 10.0
"""Seconds that the API has to say when a model is shut down."""

_REASONING = re.compile(r"(?:ft:|[\w.-]+/)?(?:o\d|gpt-(?:[5-9]|\d\d)|codex)(?!.*-chat)")

logger = logging.getLogger("runmeter")


def takes_temperature(model: str, effort: str | None = None) -> bool:
    """Tell whether a model accepts `temperature`: reasoning models refuse it, unless they are told not to reason.

    So do their fine-tuned versions (`ft:gpt-5…`), and they do under the names that routers give them (`openai/gpt-5…`).
    """
    return effort == "none" or not _REASONING.match(model)


class SunsetGuard:
    """Keeps one pattern's requests from models that have been shut down, and gives notice of those that soon will be.

    What day it is, the running run's clock says.

    Args:
        check_shutdown_date: Whether to ask the API too, once for each model: a date that it gives counts
            for more than the shipped table's.
    """

    def __init__(self, *, check_shutdown_date: bool = False) -> None:
        self._ask_api = check_shutdown_date
        self._told: dict[str, retirements.Retirement | None] = {}
        """The API's answer on each model it was asked for."""
        self._noticed: set[str] = set()

    async def check(self, model: str, client: "AsyncOpenAI") -> None:
        """Check a model before a request to it leaves, with a notice if it is shut down within 90 days.

        The table counts for OpenAI's own servers only: others may have models of that name.

        Raises:
            RetiredModel: it has been shut down.
        """
        if self._ask_api and model not in self._told:
            self._told[model] = None  # at once: runs that begin together ask once, and the others go by the table
            try:
                self._told[model] = await _retrieve(model, client)
            except BaseException:  # cancelled
                del self._told[model]
                raise
        self.check_table(model, client.base_url.host)

    def check_table(self, model: str, host: str) -> None:
        """Check a model by what is known already, without asking the API. Raises what `check` raises."""
        retirement = self._told.get(model) or (retirements.find(model) if is_openai(host) else None)
        today = _today()
        if retirement is None:
            return
        if retirement.is_retired(today):
            raise RetiredModel(model, retirement.shutdown, retirement.replacement)
        if not retirement.is_retiring(today) or model in self._noticed:
            return
        self._noticed.add(model)
        days = (retirement.shutdown - today).days
        current_execution().notice(
            kind=NOTICE_KIND,
            subject=model,
            message=f"{model} will be shut down on {retirement.shutdown}, in {days} day{'s' if days > 1 else ''}: "
            f"use {retirement.replacement} instead",
        )


def _today() -> date:
    """The day in UTC, by the clock of the run this is part of; by the machine's outside one."""
    return datetime.fromtimestamp(current_execution().runtime.clock.time_ns() // 10**9, UTC).date()


async def _retrieve(model: str, client: "AsyncOpenAI") -> retirements.Retirement | None:
    """Ask the API for a model's shutdown; None if it says nothing, or cannot be asked."""
    from openai import OpenAIError

    try:
        told = (await client.models.retrieve(model, timeout=RETRIEVE_TIMEOUT)).shutdown_date
        shutdown = date.fromisoformat(told) if told else None
    except (OpenAIError, RuntimeError, ValueError, TypeError) as error:  # RuntimeError: the client was closed
        logger.warning("cannot ask when %s is shut down (%s): the shipped table counts", model, type(error).__name__)
        return None
    if shutdown is None:
        return None
    listed = retirements.find(model)
    current = NEXT_MODEL if DEFAULT_MODEL in model else DEFAULT_MODEL  # the API names no replacement
    return retirements.Retirement(model, shutdown, listed.replacement if listed else current, "GET /models")
