"""Servers that are asked for the usage of a stream though its caller did not ask: which tell it, and which refuse."""

from typing import Any

from ..hosts import is_of_openai
from .sent import SentRequest

REFUSALS = frozenset((400, 404, 422, 500, 501))
"""Statuses with which servers refuse a parameter that they do not know."""
_FIELD = b"stream_options"


class UsageAsking:
    """What is known of servers, and of each model of theirs, by the answers they gave to such a request.

    A refusal that names the field is the field's. One that does not, with a status below 500, may be: the request is
    sent again without it, unless the server has answered one with it. With a status from 500 on it may have been
    billed, so that nothing is sent that a bare client would not send: the client's next request, such as its own second
    try, goes without the field, and if it is answered, so do all others. OpenAI's and Azure's servers are known to take
    it.
    """

    def __init__(self) -> None:
        self._silent: set[tuple[str, int | None, str]] = set()
        """Those that refuse to be asked."""
        self._telling: set[tuple[str, int | None, str]] = set()
        """Those that have answered when they were asked."""
        self._suspected: set[tuple[str, int | None, str]] = set()
        """Those that have failed when they were asked, and have not been tried without."""

    def ask(self, sent: SentRequest) -> None:
        """Ask for the usage of a stream where its caller left that open, and its server may tell it."""
        if not sent.leaves_usage_open:
            return
        server = sent.server
        if server not in self._silent and server not in self._suspected:
            sent.ask_for_usage()

    def may_be_refused(self, sent: SentRequest, status: int) -> bool:
        """Take the status of an answer. Tells whether it may refuse what was added: what it says will tell."""
        if sent.adds_usage:
            if status < 300:
                self._telling.add(sent.server)
            return status in REFUSALS
        if self._suspected and sent.leaves_usage_open and sent.server in self._suspected:
            self._try_without(sent, status)
        return False

    def takes_back(self, sent: SentRequest, response: Any) -> bool:
        """Take the field back, if the request is to leave again without it."""
        if _FIELD not in response.content:
            if sent.server in self._telling:
                return False
            if response.status_code >= 500:
                if not is_of_openai(sent.http.url.host, sent.http.url.port):
                    self._suspected.add(sent.server)
                return False
        sent.take_back_usage()
        return True

    def learn(self, sent: SentRequest, status: int) -> None:
        """Take the answer to what was sent again: a server that answers without is asked no more."""
        if status < 300:
            self._silent.add(sent.server)

    def _try_without(self, sent: SentRequest, status: int) -> None:
        self.learn(sent, status)
        if status < 300 or status >= 500:  # it fails without, too
            self._suspected.discard(sent.server)
