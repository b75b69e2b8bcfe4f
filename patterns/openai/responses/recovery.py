"""Asking the API what a request used whose answer was cut, once it has said how the answer is called."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio

from runmeter.engine import ModelCall, Provenance

from .usage import completed, record_usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

RECOVERY_LIMIT = 1.0
"""Seconds that asking may take in all, also if the run is being cancelled."""
_PAUSES = (0.0, 0.4)
"""Seconds before each time that it is asked: at once the server may not have noticed yet that the stream was left."""
_ENDED = frozenset(("completed", "incomplete", "failed", "cancelled"))

logger = logging.getLogger("runmeter")


def is_kept(params: Mapping[str, Any]) -> bool:
    """Tell whether the API keeps the answer to a request: it does unless told otherwise (openai 3.54.0, `store`)."""
    return params.get("store") is not False


async def recover_usage(client: "AsyncOpenAI", call: ModelCall) -> None:
    """Record the usage that the API reports now of a cut answer, if it has ended by now and says so.

    Users have seen that an answer whose reader has gone is written to its end, and billed in full
    (openai/openai-node#2571, 2026-09-17): it may take longer than this waits, and then nothing is recorded.
    """
    if not call.response_id or call.provenance is Provenance.REPORTED or not call.is_metered:
        return
    with anyio.move_on_after(RECOVERY_LIMIT, shield=True):
        for pause in _PAUSES:
            await anyio.sleep(pause)
            try:
                answer = completed(await client.responses.retrieve(call.response_id), call)
            except Exception as error:  # whatever it is, the request itself has ended in another error, which counts
                logger.debug("cannot ask what the answer %s used: %s", call.response_id, type(error).__name__)
                return
            if answer.status in _ENDED:
                record_usage(call, answer)
                return
