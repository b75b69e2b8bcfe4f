"""Events as a ledger stores them: decoded, or one clear error where a row's text is damaged."""

import sqlite3
from collections.abc import Iterable

import msgspec

from ..codec import JSON
from ..errors import LedgerError
from ..events import Event


def decode_events(connection: sqlite3.Connection, texts: Iterable[str]) -> list[Event]:
    """Decode events that were read from a ledger.

    Args:
        connection: The ledger.
        texts: The events as they are stored.

    Raises:
        LedgerError: one is damaged. SQLite has no checksums, so it takes a row for sound whatever is in it.
    """
    try:
        return [JSON.decode(text.encode()) for text in texts]
    except msgspec.DecodeError as error:
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        raise LedgerError(
            f"the ledger {path} has a damaged event ({error}): `runmeter export` it, and `runmeter import` that into a"
            " new one, which tells and skips what is damaged"
        ) from error
