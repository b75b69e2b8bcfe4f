"""Answers that are made in the background: what they used is known when somebody retrieves them."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from .answers import decoded

MOST = 1_000
"""Answers that are waited for, in a process; one more, and the oldest has an unknown usage."""
_GOING_ON = frozenset(("queued", "in_progress"))


class BackgroundAnswers:
    """The answers of this process that are not there yet, by their ids."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: OrderedDict[str, tuple[Callable[[bytes], object], Callable[[], object]]] = OrderedDict()

    def wait(self, response_id: str, settle: Callable[[bytes], object], give_up: Callable[[], object]) -> None:
        """Wait for an answer to be retrieved.

        Args:
            response_id: Its id.
            settle: Takes it, in bytes.
            give_up: Called in place of that if it is not waited for any longer.
        """
        with self._lock:
            self._waiting[response_id] = settle, give_up
            oldest = self._waiting.popitem(last=False)[1] if len(self._waiting) > MOST else None
        if oldest is not None:
            oldest[1]()

    def forget(self, response_id: str) -> None:
        """Wait no longer for an answer."""
        with self._lock:
            self._waiting.pop(response_id, None)

    def knows(self, path: str) -> bool:
        """Tell whether a path may be that of an answer that is waited for."""
        return bool(self._waiting) and _id_in(path) in self._waiting

    def retrieved(self, path: str, body: bytes) -> None:
        """Take an answer as it was retrieved, or cancelled: if it is there by now, it settles.

        What is no answer, such as a page of a proxy that stands in its place, says nothing of it.
        """
        answer = decoded(body)
        if answer is not None and _id_going_on(answer) is None:
            with self._lock:
                waiting = self._waiting.pop(_id_in(path), None)
            if waiting is not None:
                waiting[0](body)


def unfinished(body: bytes) -> str | None:
    """Find the id of an answer that is not there yet; None if it is, one way or another."""
    answer = decoded(body)
    return None if answer is None else _id_going_on(answer)


def _id_going_on(answer: Mapping[str, Any]) -> str | None:
    status, name = answer.get("status"), answer.get("id")
    return name if isinstance(status, str) and status in _GOING_ON and isinstance(name, str) else None


def _id_in(path: str) -> str:
    """Find the id in the path of an answer, `/responses/{id}` or `/responses/{id}/cancel`."""
    return path.removesuffix("/cancel").rpartition("/responses/")[2]


background = BackgroundAnswers()
"""The instance that this process shares."""
