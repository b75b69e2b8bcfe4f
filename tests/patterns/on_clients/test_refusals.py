"""Servers that refuse what a metered client adds to a request: what is sent again, and what they are asked then."""

import json
from typing import Any

import httpx2
import pytest
from meter_support import ASKED, MeterScene
from openai import APIStatusError, AsyncOpenAI

from runmeter import Budget, ConfigurationError, Provenance, meter

MODEL = "gpt-6-luna"
NAMED = {"error": {"message": "Unknown parameter: 'stream_options'."}}
UNNAMED = {"error": {"message": "Extra inputs are not permitted"}}
REFUSALS: list[tuple[int, Any]] = [
    *[(status, NAMED) for status in (400, 404, 422, 500, 501)],
    *[(status, UNNAMED) for status in (400, 404, 422)],
]
pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Refusing:
    """A server before the simulator that refuses some requests.

    Args:
        scene: Whose simulator answers the others.
        status: What the refused get.
        said: In JSON.
        refuses: Tells them by their parameters; without it, they are those with stream options.
        host: Where it stands, if not where the simulator does, which is known to be like OpenAI's own.
    """

    def __init__(self, scene: MeterScene, status: int, said: Any, refuses: Any = None, host: str | None = None) -> None:
        self._refusal = httpx2.Response(status, json=said)
        self._refuses = refuses or (lambda body: "stream_options" in body)
        self.bodies: list[Any] = []
        self.encodings: list[str | None] = []
        self._address = httpx2.URL(scene.simulator.url)
        settings: Any = {} if host is None else {"base_url": f"http://{host}/v1"}
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        self.client: Any = scene.client(http_client=http, **settings)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(json.loads(request.content))
        self.encodings.append(request.headers.get("accept-encoding"))
        if self._refuses(self.bodies[-1]):
            refusal = self._refusal
            return httpx2.Response(refusal.status_code, headers=refusal.headers, content=refusal.content)
        request.headers["accept-encoding"] = "identity"
        request.url = request.url.copy_with(host=self._address.host, port=self._address.port)
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.send(request)
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(answer.status_code, headers=headers, content=answer.content)

    async def ask(self, **more: Any) -> None:
        """Ask for a stream, and read it."""
        stream = await self.client.chat.completions.create(model=MODEL, messages=ASKED, stream=True, **more)
        assert [chunk async for chunk in stream]


@pytest.mark.parametrize(("status", "said"), REFUSALS)
async def test_what_the_bare_client_gets_the_metered_one_gets(status: int, said: Any) -> None:
    async with MeterScene.open() as scene:
        server = Refusing(scene, status, said)
        for _ in range(2):
            await server.ask()
        await server.client.close()
        await scene.settled()
        assert ["stream_options" in body for body in server.bodies] == [True, False, False]
        assert server.encodings[0] == "identity"
        assert server.encodings[1] == server.encodings[2] != "identity", "as the client asks"
        assert [event.provenance for event in scene.ends] == [Provenance.PARTIAL] * 2


async def test_what_a_budget_changed_stays_changed() -> None:
    budgets = [Budget(tokens=300, every="day", when_exceeded="lower")]
    async with MeterScene.open(budgets=budgets) as scene:
        server = Refusing(scene, 400, NAMED)
        await server.ask(max_completion_tokens=5_000)
        await server.client.close()
        first, second = server.bodies
        assert first["max_completion_tokens"] < 300
        assert second == {name: value for name, value in first.items() if name != "stream_options"}
        assert scene.engine.budgets()[0].reserved == 0


async def test_options_of_the_callers_own_stay() -> None:
    async with MeterScene.open() as scene:
        server = Refusing(scene, 400, NAMED, lambda body: "include_usage" in body["stream_options"])
        await server.ask(stream_options={"include_obfuscation": False})
        await server.client.close()
        assert [body["stream_options"] for body in server.bodies] == [
            {"include_obfuscation": False, "include_usage": True},
            {"include_obfuscation": False},
        ]


@pytest.mark.parametrize(("status", "sent"), [(400, 2), (401, 1), (429, 1), (500, 1)])
async def test_another_refusal_is_the_callers(status: int, sent: int) -> None:
    async with MeterScene.open() as scene:
        server = Refusing(scene, status, UNNAMED, lambda body: body["messages"][0]["content"] == "no")
        refused: Any = [{"role": "user", "content": "no"}]
        for count in (sent, 1):
            server.bodies.clear()
            with pytest.raises(APIStatusError) as caught:
                await server.client.chat.completions.create(model=MODEL, messages=refused, stream=True)
            assert caught.value.status_code == status
            assert len(server.bodies) == count
            await server.ask()  # after which it is known to tell usage
        await server.client.close()
        await scene.settled()
        assert [event.error_type is None for event in scene.ends] == [False, True] * 2
        assert [event.provenance for event in scene.ends[1::2]] == [Provenance.REPORTED] * 2


async def reads(client: Any, retries: int) -> bool:
    """Ask for a stream, and tell whether it could be read."""
    asked: Any = {"model": MODEL, "messages": ASKED, "stream": True}
    try:
        stream = await client.with_options(max_retries=retries).chat.completions.create(**asked)
    except APIStatusError:
        return False
    return bool([chunk async for chunk in stream])


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client try again at once."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("status", [500, 501])
async def test_a_failure_that_names_nothing_has_the_next_request_go_without(status: int, retries: int) -> None:
    """It may be billed: no more is sent than a bare client would send."""
    async with MeterScene.open() as scene:
        server = Refusing(scene, status, UNNAMED, host="gateway.test")
        assert [await reads(server.client, retries) for _ in range(3)] == [retries > 0, True, True]
        await server.client.close()
        await scene.settled()
        assert ["stream_options" in body for body in server.bodies] == [True, *[False] * (2 + retries)]
        ends = [Provenance.UNKNOWN] + [Provenance.PARTIAL] * (2 + retries)
        assert [event.provenance for event in scene.ends] == ends
        assert [event.attempt for event in scene.ends[:2]] == ([1, 2] if retries else [1, 1])


@pytest.mark.usefixtures("no_waiting")
async def test_one_that_fails_without_as_well_is_asked_again() -> None:
    async with MeterScene.open() as scene:
        is_down = True
        server = Refusing(scene, 500, UNNAMED, lambda _: is_down, host="gateway.test")
        assert not await reads(server.client, 1)
        is_down = False
        assert [await reads(server.client, 0) for _ in range(2)] == [True] * 2
        await server.client.close()
        await scene.settled()
        assert ["stream_options" in body for body in server.bodies] == [True, False, True, True]
        assert [event.provenance for event in scene.ends[2:]] == [Provenance.REPORTED] * 2


WRONG: list[dict[str, Any]] = [
    {"provider": 5},
    {"provider": ""},
    {"models": ["a"]},
    {"models": "a"},
    {"models": []},
    {"models": {"a": 5}},
    {"models": {5: "a"}},
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_are_no_names_is_refused_and_changes_nothing(wrong: dict[str, Any]) -> None:
    async with MeterScene.open() as scene:
        client = AsyncOpenAI(**scene.settings())
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            meter(client, **wrong)
        await client.chat.completions.create(model=MODEL, messages=ASKED)
        assert scene.arrived == 1
        assert not scene.events, "it is not metered"
        meter(client)
        await client.chat.completions.create(model=MODEL, messages=ASKED)
        await client.close()
        await scene.settled()
        assert len(scene.ends) == 1
