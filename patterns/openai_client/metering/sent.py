"""Requests as a metered client sends them: read from their bytes, and changed there where a caller need not know."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from runmeter.engine import ModelRequest, Usage

from ...requests.bounds import Sent, SentTexts, sent_completion, sent_response
from ..hosts import provider_of

Api: TypeAlias = Literal["responses", "chat_completions", "embeddings"]
APIS: Mapping[str, Api] = {
    "/responses": "responses",
    "/chat/completions": "chat_completions",
    "/embeddings": "embeddings",
}
"""APIs by the ends of their paths, on Azure's deployments as anywhere."""
RUN_NAMES: Mapping[Api, str] = {
    "responses": "openai.responses",
    "chat_completions": "openai.chat",
    "embeddings": "openai.embeddings",
}
"""Names of the runs of requests that belong to no other."""
_RETRIES = "x-stainless-retry-count"
"""The header by which the client tells how often it has tried before (openai 3.54.0, `_base_client.py`)."""


class Body(msgspec.Struct, gc=False):
    """The parameters of a request that its events tell. What it says is skipped."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    background: Any = None
    service_tier: Any = None
    temperature: Any = None
    previous_response_id: Any = None
    max_output_tokens: Any = None
    max_completion_tokens: Any = None
    max_tokens: Any = None


_body = msgspec.json.Decoder(Body)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class SentRequest:
    """A request to a model that is about to leave.

    Args:
        api: Whose form it has.
        request: The HTTP request.
        providers: Whose prices servers have, by their addresses; the hosts of others say it.
        models: Names of models, by those of deployments that stand for them.
    """

    __slots__ = ("_asked", "_provider", "_sent", "adds_usage", "api", "body", "host", "http", "model", "port")

    def __init__(
        self, api: Api, request: Any, providers: Mapping[tuple[str, int | None], str], models: Mapping[str, str]
    ) -> None:
        url = request.url
        self.api: Api = api
        self.http = self._asked = request
        self.host: str = url.host
        self.port: int | None = url.port
        self.body = _body.decode(request.content)
        name = str(self.body.model or _deployment(url.path))
        self.model = models.get(name, name)
        """The model asked for, by its own name where a deployment stands for it."""
        self.adds_usage = False
        """True if a streamed answer is asked for its usage though its caller did not."""
        self._provider = providers.get((self.host, self.port)) or provider_of(self.host, self.port)
        self._sent: Sent | SentTexts | None = None

    @property
    def attempt(self) -> int:
        """The number of the try, from 1, as the client counts them."""
        retries = self.http.headers.get(_RETRIES, "")
        return int(retries) + 1 if retries.isdecimal() else 1

    @property
    def leaves_usage_open(self) -> bool:
        """True of a stream of Chat Completions that does not say whether to tell its usage: then none is told."""
        body = self.body
        if body.stream is not True or self.api != "chat_completions":
            return False
        options = body.stream_options
        return options is None or (isinstance(options, dict) and options.get("include_usage") is None)

    @property
    def server(self) -> tuple[str, int | None, str]:
        """The server and its model, which answer alike."""
        return self.host, self.port, self.model

    def describe(self, bound: Usage | None = None) -> ModelRequest:
        """Describe the request in the engine's words."""
        body = self.body
        is_embedding = self.api == "embeddings"
        return ModelRequest(
            provider=self._provider,
            model=self.model,
            operation="embeddings" if is_embedding else "chat",
            api=None if is_embedding else self.api,
            stream=body.stream is True,
            service_tier=body.service_tier,
            max_output_tokens=body.max_output_tokens or body.max_completion_tokens or body.max_tokens,
            temperature=body.temperature,
            previous_response_id=body.previous_response_id,
            server_address=self.host,
            server_port=self.port or (443 if self.http.url.scheme == "https" else 80),
            bound=bound,
        )

    @property
    def sent(self) -> Sent | SentTexts:
        """The parts of it that say how much it can use. All of it is read for that."""
        if self._sent is None:
            self._sent = self._read()
        return self._sent

    def _read(self) -> Sent | SentTexts:
        params = {name: value for name, value in msgspec.json.decode(self.http.content).items() if value is not None}
        params["model"] = self.model
        if self.api == "embeddings":
            return SentTexts(model=self.model, texts=_texts(params.get("input")))
        return (sent_response if self.api == "responses" else sent_completion)(params, self._provider)

    def ask_for_usage(self) -> None:
        """Have a streamed answer end with its usage, which its caller left open."""
        self._set("stream_options", {**(self.body.stream_options or {}), "include_usage": True})
        self.http.headers["accept-encoding"] = "identity"  # what is to be cut out must be there to be seen
        self.adds_usage = True

    def take_back_usage(self) -> None:
        """Ask for no more usage than the caller did. Whatever else was changed stays so."""
        asked = self._asked
        self._set("stream_options", _fields.decode(asked.content).get("stream_options"))
        encoding = asked.headers.get("accept-encoding")
        if encoding is None:
            del self.http.headers["accept-encoding"]
        else:
            self.http.headers["accept-encoding"] = encoding
        self.adds_usage = False

    def limit(self, tokens: int) -> None:
        """Make the answer shorter: at most so many tokens."""
        if self.api == "responses":
            self._set("max_output_tokens", tokens)
            return
        names = [name for name in ("max_completion_tokens", "max_tokens") if getattr(self.body, name) is not None]
        for name in names or ["max_completion_tokens"]:
            self._set(name, tokens)

    def _set(self, name: str, value: object) -> None:
        """Set a parameter in the bytes that leave, and nothing else of them. None takes it out."""
        request = self.http
        fields = _fields.decode(request.content)
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = msgspec.Raw(msgspec.json.encode(value))
        content = msgspec.json.encode(fields)
        headers = request.headers.copy()
        headers["content-length"] = str(len(content))
        self.http = type(request)(
            request.method, request.url, headers=headers, content=content, extensions=request.extensions
        )


def _deployment(path: str) -> str:
    """Find the deployment's name in a path of Azure's, such as `/openai/deployments/mine/chat/completions`."""
    _, found, rest = path.partition("/deployments/")
    return rest.partition("/")[0] if found else "unknown"


def _texts(given: Any) -> list[str]:
    """Read the texts to embed. Tokens in their place are as many bytes at most as a text of so many words."""
    match given:
        case str():
            return [given]
        case [int(), *_]:
            return ["x" * len(given)]
        case list():
            return [each if isinstance(each, str) else "x" * len(each) for each in given]
        case _:
            return []
