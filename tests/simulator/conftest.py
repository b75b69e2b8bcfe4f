"""What the simulator's tests share."""

import pytest


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.campaign)])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run clients on asyncio at once, and on trio in the campaign: the server runs in a thread of its own."""
    backend: str = request.param
    return backend
