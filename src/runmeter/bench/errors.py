"""Errors before anything is measured, and while it is."""

from runmeter.cli.ending import CommandError


class BenchError(CommandError):
    """The benchmarks cannot begin; the message says why and what to do."""


class PeerFailed(Exception):
    """A peer's process ended, hung or never began; the message says why."""


class CaseFailed(Exception):
    """A peer could not do a case; the peer lives on."""
