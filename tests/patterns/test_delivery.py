"""The pieces of an answer, on their way to whoever listens."""

import json
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pattern_support import Run

from runmeter.engine import ConfigurationError
from runmeter.patterns.delivery import Delivery
from runmeter.patterns.errors import ListenerGone


class Socket:
    """A WebSocket that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.sending = 0

    async def send_json(self, message: dict[str, Any]) -> None:
        self.sending += 1
        assert self.sending == 1, "a WebSocket takes one message at a time"
        await anyio.lowlevel.checkpoint()
        self.messages.append(message)
        self.sending -= 1


class TextSocket:
    """One that takes text alone."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def send_text(self, text: str) -> None:
        self.texts.append(text)


async def test_nobody_need_listen() -> None:
    delivery = Delivery()
    run = Run()
    with run():
        assert not delivery.wanted
        await delivery.delta("a")
        await delivery.tell({"type": "status"})


async def test_outside_a_run_the_socket_is_told() -> None:
    socket = Socket()
    delivery = Delivery(socket)
    assert delivery.wanted
    await delivery.delta("a")
    assert [message["text"] for message in socket.messages] == ["a"]


async def test_whoever_streams_the_run_and_the_socket_get_every_piece_in_order() -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    socket = Socket()
    delivery = Delivery(socket)
    with Run(delta=hear)() as execution:
        for text in "abc":
            await delivery.delta(text)
    assert heard == ["a", "b", "c"]
    assert socket.messages == [{"type": "delta", "run_id": execution.run_id, "text": text} for text in "abc"]


async def test_it_is_wanted_where_the_run_is_streamed() -> None:
    async def hear(text: str) -> None:
        """Listen."""

    with Run(delta=hear)():
        assert Delivery().wanted
    assert not Delivery().wanted


async def test_a_socket_for_text_gets_json() -> None:
    socket = TextSocket()
    with Run()() as execution:
        await Delivery(socket).delta('"ü" 東')
    [text] = socket.texts
    assert json.loads(text) == {"type": "delta", "run_id": execution.run_id, "text": '"ü" 東'}
    assert "東" in text, "readable, and shorter than escapes"


async def test_json_is_preferred() -> None:
    class Both(Socket, TextSocket):
        def __init__(self) -> None:
            Socket.__init__(self)
            TextSocket.__init__(self)

    socket = Both()
    await Delivery(socket).delta("a")
    assert (len(socket.messages), socket.texts) == (1, [])


async def test_runs_that_share_a_socket_take_turns() -> None:
    socket = Socket()
    delivery = Delivery(socket)

    async def work(name: str) -> None:
        with Run()():
            for number in range(5):
                await delivery.delta(f"{name}{number}")

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(work, name)
    texts = [message["text"] for message in socket.messages]
    for name in "abc":
        assert [text for text in texts if text[0] == name] == [f"{name}{number}" for number in range(5)]
    runs = {message["text"][0]: message["run_id"] for message in socket.messages}
    assert len(set(runs.values())) == 3


async def test_a_run_that_is_cancelled_leaves_the_socket_to_others() -> None:
    release = anyio.Event()
    begun = anyio.Event()

    class Slow(Socket):
        async def send_json(self, message: dict[str, Any]) -> None:
            if not begun.is_set():
                begun.set()
                await release.wait()
            self.messages.append(message)

    socket = Slow()
    delivery = Delivery(socket)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(delivery.delta, "lost")
        await begun.wait()
        tasks.cancel_scope.cancel()
    await delivery.delta("heard")
    assert [message["text"] for message in socket.messages] == ["heard"]


async def test_an_error_of_the_socket_is_the_runs() -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    class Broken(TextSocket):
        async def send_text(self, text: str) -> None:
            if "lost" in text:
                raise ConnectionResetError("the client has gone")
            await super().send_text(text)

    socket = Broken()
    delivery = Delivery(socket)
    run = Run(delta=hear)
    with pytest.raises(ListenerGone, match="ConnectionResetError") as raised, run():
        await delivery.delta("lost")
    assert raised.value.reason == "ConnectionResetError"
    assert isinstance(raised.value.__cause__, ConnectionResetError)
    assert heard == [], "a piece that one did not get is not handed to the other"
    with run():
        await delivery.delta("next")
    assert len(socket.texts) == 1


async def test_other_messages_go_to_the_socket_alone() -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    socket = Socket()
    with Run(delta=hear)():
        await Delivery(socket).tell({"type": "status", "step": 1})
    assert socket.messages == [{"type": "status", "step": 1}]
    assert heard == []


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_every_text_can_be_sent(text: str) -> None:
    socket = TextSocket()
    anyio.run(Delivery(socket).delta, text)
    [sent] = socket.texts
    assert len(json.loads(sent.encode())["text"]) == len(text)


@pytest.mark.parametrize("socket", [object(), print, "wss://example.com", 3])
def test_what_is_no_socket_is_refused(socket: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"send_json or send_text, which '{type(socket).__name__}' has not"):
        Delivery(socket)
