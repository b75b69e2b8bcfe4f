"""OpenAI's servers, and those that are built like them and have not all of its APIs: what a 404 of theirs means.

Ollama, vLLM, llama.cpp and gateways answer a path they do not know with 404 and a body of their own.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx2

from .hosts import AZURE

_OPENAI_HOST = re.compile(r"(?:[\w-]+\.)?api\.openai\.com")
"""OpenAI's own servers, those of a region too: `eu.api.openai.com` (source: openai 3.54.0, `_data_residency.py`)."""
_ASK_OTHERWISE = (
    "ask it over Chat Completions, by a pattern on LangGraph with model=ChatOpenAI(base_url=..., "
    "use_responses_api=False); see docs/servers.md"
)
_OPENAI_ALONE = "what needs it works with OpenAI's own server, or one that has it; see docs/servers.md"
_APIS = {
    "/responses": ("Responses API", _ASK_OTHERWISE),
    "/responses/input_tokens": ("API that counts a request's tokens", _OPENAI_ALONE),
    "/conversations": ("Conversations API", _OPENAI_ALONE),
    "/embeddings": ("Embeddings API", _OPENAI_ALONE),
    "/files": ("Files API", _OPENAI_ALONE),
    "/vector_stores": ("Vector Stores API", _OPENAI_ALONE),
}
"""By the end of the path that makes something: below it a 404 may mean that the thing is gone."""


def is_openai(host: str) -> bool:
    """Tell whether a host is OpenAI's own."""
    return bool(_OPENAI_HOST.fullmatch(host))


def _is_azure(host: str) -> bool:
    """Tell whether a host is Azure's: there a deployment may be missing, or the API's version is an older one."""
    return host.lower().endswith(AZURE)


def missing_api(response: httpx2.Response, body: object) -> str | None:
    """Say which API a server does not have, and what to do; None where something else was not found, or all is well.

    Args:
        response: What it answered.
        body: The answer's content, read as JSON where it is that.
    """
    url = response.request.url
    if response.status_code != 404 or response.request.method != "POST" or is_openai(url.host) or _is_azure(url.host):
        return None
    path = url.path.rstrip("/")
    name, advice = next((_APIS[end] for end in sorted(_APIS, key=len, reverse=True) if path.endswith(end)), ("", ""))
    if not name or _names_something(body, _sent(response.request)):
        return None
    return f"the server at {url.netloc.decode()} has no {name} (404 for {path}): {advice}"


def _names_something(body: object, sent: Mapping[str, Any]) -> bool:
    """Tell whether an error is about something that the request names: a model, a conversation, an earlier answer."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if isinstance(error, Mapping):
        if error.get("code") == "model_not_found" or error.get("param"):
            return True
        error = error.get("message")
    said = str(error or "")
    return any(isinstance(name, str) and len(name) > 2 and name in said for name in sent.values())


def _sent(request: httpx2.Request) -> Mapping[str, Any]:
    """Read what was sent, but for the texts; nothing where it was not JSON."""
    try:
        sent = json.loads(request.content)
    except (ValueError, httpx2.RequestNotRead):
        return {}
    if not isinstance(sent, dict):
        return {}
    return {name: value for name, value in sent.items() if name not in ("input", "instructions")}
