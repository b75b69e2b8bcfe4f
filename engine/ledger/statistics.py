"""The account of a ledger: its events received, kept, pending and skipped."""

import msgspec


class LedgerStatistics(msgspec.Struct, frozen=True):
    """The account of a ledger in this process: `received = durable + skipped + pending`."""

    received: int
    durable: int
    """Events on disk."""
    pending: int
    skipped: int
    """Events that have no form in the ledger: the log tells the first."""
    commits: int
    failures: int
    """Commits that failed. Their events wait, and are tried again."""
    last_error: str | None
    """The reason why the last commit failed; None once one has succeeded."""
