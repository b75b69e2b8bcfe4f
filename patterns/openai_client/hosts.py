"""Providers by the host that a request goes to: it says whose prices are meant."""

from functools import lru_cache

from runmeter.engine import provider_standing_at

AZURE = (
    ".openai.azure.com",
    ".openai.azure.us",
    ".cognitiveservices.azure.com",
    ".cognitiveservices.azure.us",
    ".services.ai.azure.com",
)
"""Ends of the hosts of Azure OpenAI. Source: learn.microsoft.com, "Azure OpenAI in Foundry Models REST API reference"
(2026-10)."""
_OPENAI = "api.openai.com"
HOOK = "_runmeter_hook"
"""The attribute of a metered HTTP client that has its hook: there is said whose prices a host has, if that was said."""


def provider_of(host: str, port: int | None) -> str:
    """Name the provider behind a host in the words of the OpenTelemetry GenAI conventions, or by the host itself.

    A host that is not known has no prices of OpenAI's, whatever its models are called: they may be others' models, or
    cost less or more there.
    """
    return provider_standing_at(host, port) or _known(host, port)


@lru_cache(maxsize=256)
def _known(host: str, port: int | None) -> str:
    host = host.lower().rstrip(".")
    if host == _OPENAI or host.endswith("." + _OPENAI):  # such as eu.api.openai.com
        return "openai"
    if host.endswith(AZURE):
        return "azure.ai.openai"
    return host if port is None else f"{host}:{port}"


def is_of_openai(host: str, port: int | None) -> bool:
    """Tell whether a host is OpenAI's or Azure's, or stands in for one: it takes all that OpenAI's API takes."""
    return provider_of(host, port) in ("openai", "azure.ai.openai")
