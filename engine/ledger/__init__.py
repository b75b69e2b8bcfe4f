"""The ledger: every event of every run in a file, which outlives its process. Replay gives the same statistics."""
