"""Servers in this process that stand in for a provider: what is asked of them has that provider's name and prices."""

_providers: dict[tuple[str, int | None], str] = {}


def stand_in(host: str, port: int, provider: str) -> None:
    """Say that a server stands in for a provider, as the simulator does for OpenAI."""
    _providers[host, port] = provider


def stop_standing_in(host: str, port: int) -> None:
    """Say that a server has stopped. One that was none is not an error."""
    _providers.pop((host, port), None)


def provider_standing_at(host: str, port: int | None) -> str | None:
    """Find the provider that a server stands in for; None if it is no stand-in of this process."""
    return _providers.get((host, port))
