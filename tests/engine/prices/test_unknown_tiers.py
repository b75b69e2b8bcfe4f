"""A request whose service tier is not known: reserved, settled and shown at the dearest one's price."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from runmeter.engine import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    Engine,
    ModelCallStarted,
    ModelRequest,
    PriceBook,
    Provenance,
    TokenUsage,
    Usage,
    UsageAggregator,
    current_execution,
)
from runmeter.engine.testing import Recorder

# gpt-4.1-mini: $0.40 and $1.60 for a million tokens, $0.70 and $2.80 with priority.
REQUEST = ModelRequest(provider="openai", model="gpt-4.1-mini", bound=Usage(1_000, 1_000))
PRIORITY, STANDARD = Decimal("0.0035"), Decimal("0.002")
WAYS: dict[str, tuple[dict[str, Any], str | None, str | None, Decimal]] = {
    "nothing named": ({}, None, None, PRIORITY),
    "auto": ({}, "auto", None, PRIORITY),
    "auto, as asked and as answered": ({}, "auto", "auto", PRIORITY),
    "named": ({}, "default", None, STANDARD),
    "named by the answer": ({}, None, "default", PRIORITY),
    "assumed": ({"assume_tier": "default"}, None, None, STANDARD),
    "assumed for auto": ({"assume_tier": "default"}, "auto", "auto", STANDARD),
    "named against what is assumed": ({"assume_tier": "default"}, "priority", None, PRIORITY),
    "another assumed": ({"assume_tier": "priority"}, None, None, PRIORITY),
}


@pytest.mark.parametrize("provenance", [Provenance.UNKNOWN, Provenance.PARTIAL])
@pytest.mark.parametrize(("options", "asked", "answered", "reserved"), WAYS.values(), ids=WAYS.keys())
async def test_reserved_settled_and_shown_are_one_figure(
    options: dict[str, Any], asked: str | None, answered: str | None, reserved: Decimal, provenance: Provenance
) -> None:
    recorder = Recorder()
    budget = Budget(usd=PRIORITY)
    async with Engine(budgets=[budget], **options) as engine:
        engine.subscribe(recorder, name="recorder")

        async def ask(*_: object) -> None:
            request = msgspec.structs.replace(REQUEST, service_tier=asked)
            with current_execution().model_call(request) as call:
                assert engine.budgets()[0].reserved == reserved
                if provenance is Provenance.PARTIAL:
                    call.record(Usage(1_000, 10), provenance, service_tier=answered)

        result = await engine.run(ask, "")
        [status] = engine.budgets()
        shown = engine.usage().total.cost
    # Only an answer can name a tier after the fact: then what was reserved for the dearest is not needed.
    settled = STANDARD if answered == "default" and provenance is Provenance.PARTIAL else reserved
    assert result.cost.high == shown.high == status.spent == settled
    replayed = UsageAggregator(PriceBook())
    replayed.fold(recorder.events)
    assert replayed.snapshot().total.cost == shown


async def test_an_event_says_that_the_tier_is_not_known() -> None:
    assert await told() == (None, None)
    assert await told(assume_tier="default") == (None, "default")


async def told(**options: Any) -> tuple[str | None, str | None]:
    """The service tiers as asked for and as served."""
    recorder = Recorder()
    async with Engine(**options) as engine:
        engine.subscribe(recorder, name="recorder")

        async def ask(*_: object) -> None:
            with current_execution().model_call(REQUEST):
                pass

        await engine.run(ask, "")
    [started] = [event for event in recorder.events if isinstance(event, ModelCallStarted)]
    [ended] = [event for event in recorder.events if isinstance(event, TokenUsage)]
    return started.service_tier, ended.service_tier


async def test_a_refusal_says_how_a_named_tier_helps() -> None:
    async with Engine(budgets=[Budget(usd=STANDARD)]) as engine:

        async def ask(*_: object) -> None:
            with current_execution().model_call(REQUEST):
                raise AssertionError("it does not leave")

        with pytest.raises(BudgetExceeded, match=r'Engine\(assume_tier="default"\)') as refused:
            await engine.run(ask, "")
    assert any("service_tier" in way for way in refused.value.ways_out)


@pytest.mark.parametrize("tier", ["", "auto", 5, b"default"])
def test_only_a_tier_can_be_assumed(tier: Any) -> None:
    with pytest.raises(ConfigurationError, match="assume_tier is a service tier, such as 'default'"):
        Engine(assume_tier=tier)
