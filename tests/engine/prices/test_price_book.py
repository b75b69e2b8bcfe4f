"""Our arithmetic against genai-prices' own `calc_price`, and what is not to be guessed."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

import genai_prices
import msgspec
import pytest
from campaign_support import examples
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Tier, TieredPrices
from hypothesis import example, given
from hypothesis import strategies as st
from process_support import output_of, python
from strategies import NOW, text_usages, usages, wild_usages

from runmeter.engine.events import Provenance, TokenUsage, Usage
from runmeter.engine.prices.cost_estimate import CostEstimate
from runmeter.engine.prices.price_book import PriceBook
from runmeter.engine.prices.rates import Price, rates_of
from runmeter.engine.prices.readings import contradiction_in, is_consistent, readings

BOOK = PriceBook()
UNPRICED = CostEstimate(high_units=None, unpriced=1)
PROVIDERS = {provider.id: provider for provider in get_snapshot().providers}
TIERS = (None, "default", "flex", "priority", "fast", "batch", "scale")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT = datetime.fromtimestamp(NOW // 10**9, UTC)

# What `Usage` says, under the names of genai-prices.
USAGE_KEYS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "audio_input_tokens": "input_audio_tokens",
    "audio_cache_read_tokens": "cache_audio_read_tokens",
    "audio_output_tokens": "output_audio_tokens",
    "image_input_tokens": "input_image_tokens",
    "image_output_tokens": "output_image_tokens",
    "web_searches": "web_searches",
    "file_searches": "storage_searches",
}
# What has no price but its own.
REQUIRED = {
    "input_tokens": "input_mtok",
    "output_tokens": "output_mtok",
    "cache_write_tokens": "cache_write_mtok",
    "audio_input_tokens": "input_audio_mtok",
    "audio_output_tokens": "output_audio_mtok",
    "web_searches": "web_searches_kcount",
    "file_searches": "storage_searches_kcount",
}
WRITTEN_FOR_12_HOURS = {
    *("gpt-5.6-luna", "gpt-5.6-terra", "gpt-5.6-sol"),
    *("gpt-6-luna", "gpt-6-sol", "gpt-6-astra", "gpt-6.1-terra", "gpt-6.1-sol"),
}
"""The models whose cache writes for 12 hours the shipped overlay prices."""
INEXPRESSIBLE = ("hours", "mchars", "kpages", "gpixels", "messages_kcount", "video", "citation")


def request(
    usage: Usage | None,
    model: str = "gpt-6-luna",
    *,
    tier: str | None = None,
    provenance: Provenance = Provenance.REPORTED,
    provider: str = "openai",
    response_model: str | None = None,
    start_ns: int = NOW,
    bound: Usage | None = None,
) -> TokenUsage:
    return TokenUsage(
        run_id="1" * 32,
        seq=1,
        time_ns=start_ns,
        call_id=1,
        provider=provider,
        operation="chat",
        model=model,
        provenance=provenance,
        usage=usage,
        start_ns=start_ns,
        duration_ns=0,
        response_model=response_model,
        service_tier=tier,
        bound=bound,
    )


def calculated(event: TokenUsage) -> Decimal | None:
    """What genai-prices says, or None where it knows nothing, refuses, or would put one price in another's place."""
    usage, tier = event.usage, event.service_tier
    assert usage is not None
    at = EPOCH + timedelta(microseconds=event.start_ns // 1000)
    try:
        result = genai_prices.calc_price(
            genai_prices.Usage(**{key: getattr(usage, kind) for kind, key in USAGE_KEYS.items()}),
            event.model,
            provider_id=event.provider,
            genai_request_timestamp=at,
            price_context=context_of(tier),
        )
    except (LookupError, ValueError):
        return None
    listed = {key for key, price in vars(result.model_price).items() if price is not None}
    guesses = (
        any(word in key for key in listed for word in INEXPRESSIBLE)
        or "input_mtok" not in listed
        or any(getattr(usage, kind) and key not in listed for kind, key in REQUIRED.items())
        or (usage.cache_write_12h_tokens and result.model.id not in WRITTEN_FOR_12_HOURS)
        or not serves(result.model, tier, at)
        or (event.provider == "openai" and event.model.startswith("gpt-oss-"))
    )
    if guesses:
        return None
    # genai-prices has no 12 hours: such tokens cost twice what it says of a write, so they cost that once more.
    return result.total_price + usage.cache_write_12h_tokens * write_rate(result.model_price, usage.input_tokens)


def write_rate(prices: ModelPrice, input_tokens: int) -> Decimal:
    """USD for one token."""
    listed = prices.cache_write_mtok or Decimal(0)
    rates = [Tier(-1, listed)] if isinstance(listed, Decimal) else [Tier(-1, listed.base), *listed.tiers]
    return [tier.price for tier in rates if input_tokens > tier.start or tier.start < 0][-1] / 10**6


def context_of(tier: str | None) -> dict[str, str] | None:
    if tier is None:
        return None
    return {"processing": "batch"} if tier == "batch" else {"service_tier": tier}


def serves(model: ModelInfo, tier: str | None, at: datetime) -> bool:
    return tier in (None, "default") or any(
        variant.when == context_of(tier) and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def listed_prices(event: TokenUsage) -> tuple[ModelPrice, ModelPrice]:
    """genai-prices' standard prices of a model, and those on its tier."""
    model = PROVIDERS[event.provider].find_model(event.model, all_providers=list(PROVIDERS.values()))
    assert model is not None
    at = EPOCH + timedelta(microseconds=event.start_ns // 1000)
    return model.get_prices(at), model.get_prices(at, context_of(event.service_tier))


def is_longer_than_its_prices(event: TokenUsage) -> bool:
    """A long prompt, for which the standard prices are others, on a tier whose long prompts are not listed."""
    assert event.usage is not None
    return any(
        isinstance(price, TieredPrices)
        and isinstance(vars(on_tier).get(key), Decimal)
        and event.usage.input_tokens > price.tiers[0].start
        for standard, on_tier in [listed_prices(event)]
        for key, price in vars(standard).items()
    )


def check(event: TokenUsage) -> None:
    expected, cost, usage = calculated(event), BOOK.cost(event), event.usage
    assert usage is not None
    if expected is None:
        assert cost == UNPRICED
        return
    if is_longer_than_its_prices(event):
        assert cost.low > expected
        return
    _, listed = listed_prices(event)
    if usage.cache_write_tokens and getattr(listed, "cache_write_1h_mtok", None) is not None:
        assert cost.low == expected < (cost.high or 0)  # genai-prices takes the shorter lifetime
    elif usage.cache_read_tokens and listed.cache_read_mtok is None:
        assert cost.low < expected == cost.high or not listed.input_mtok  # genai-prices takes the plain rate
    elif usage.audio_cache_read_tokens and listed.cache_audio_read_mtok is None:
        assert cost.low < expected == cost.high
    else:
        assert cost == CostEstimate.between(expected, expected)


DATED = [datetime(2025, 6, 10), datetime(2026, 7, 30), datetime(2026, 8, 21), datetime(2026, 10, 12)]
times = st.one_of(
    st.sampled_from([NOW // 1000]),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 6, 1)).map(lambda at: at.replace(tzinfo=UTC) - EPOCH),
    # A change of prices, and the last moment before it.
    st.sampled_from(DATED).flatmap(
        lambda at: st.sampled_from([timedelta(0), timedelta(microseconds=-1)]).map(
            lambda delta: at.replace(tzinfo=UTC) - EPOCH + delta
        )
    ),
).map(lambda since: 1000 * (since if isinstance(since, int) else since // timedelta(microseconds=1)))


@given(st.sampled_from([model.id for model in PROVIDERS["openai"].models]), st.sampled_from(TIERS), usages(), times)
@examples(1000)
def test_openai_prices_equal_genai_prices_to_the_last_digit(
    model: str, tier: str | None, usage: Usage, start_ns: int
) -> None:
    check(request(usage, model, tier=tier, start_ns=start_ns))


@given(
    st.sampled_from(["gpt-audio", "gpt-realtime", "gpt-realtime-mini", "gpt-image-1.5", "gpt-4o", "gpt-6-luna"]),
    usages(),
)
@examples(500)
def test_audio_images_and_searches_cost_what_genai_prices_says(model: str, usage: Usage) -> None:
    check(request(usage, model))


CHAT_MODELS = [
    model.id
    for model in PROVIDERS["openai"].models
    if model.id.startswith(("gpt-4", "gpt-5", "gpt-6", "o1", "o3", "o4")) and serves(model, "default", EPOCH)
]


def each_of(models: Sequence[str]) -> list[Any]:
    """All of them, those of a few kinds of price list at once and the others in a campaign."""
    return [model if model in TYPICAL else pytest.param(model, marks=pytest.mark.campaign) for model in models]


TYPICAL = {"gpt-4", "gpt-4.1-mini", "gpt-5.5-pro", "gpt-6-luna", "gpt-6.1-terra", "gpt-6.2-astra", "o3"}


@given(st.sampled_from(CHAT_MODELS), wild_usages | usages() | text_usages())
@examples(300)
def test_the_short_way_to_a_price_gives_what_the_full_one_does(model: str, usage: Usage) -> None:
    event = request(usage, model)
    assert BOOK.cost(event) == BOOK._cost(event)


def test_a_price_with_more_decimals_than_money_has_is_none() -> None:
    assert rates_of({"input_mtok": Price(Decimal("1e-30"))})
    assert not rates_of({"input_mtok": Price(Decimal("1e-31"))})


@pytest.mark.parametrize("model", each_of(CHAT_MODELS))
@given(st.sampled_from(TIERS), text_usages())
@examples(15)
def test_text_of_every_openai_model_is_priced_like_genai_prices(model: str, tier: str | None, usage: Usage) -> None:
    check(request(usage, model, tier=tier))


def shapes(start: int) -> Iterator[Usage]:
    """Prompts just below and beyond a threshold, of all kinds of text."""
    for total in (start - 1, start, start + 1):
        yield Usage(total)
        yield Usage(total, 1_001, total // 3, 0, 0, 1_001)
        yield Usage(total, start + 1, total // 3, total - total // 3, 0, 7)
        yield Usage(total, 13, 0, total, total // 7)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("model", each_of(CHAT_MODELS))
def test_every_model_on_every_tier_is_exact_around_each_threshold(model: str, tier: str | None) -> None:
    listed = next(each for each in PROVIDERS["openai"].models if each.id == model).get_prices(AT)
    thresholds = {
        step.start for price in vars(listed).values() if isinstance(price, TieredPrices) for step in price.tiers
    }
    for start in sorted(thresholds or {1_000}):
        for usage in shapes(start):
            check(request(usage, model, tier=tier))


def test_batches_are_priced_at_their_own_rates() -> None:
    """Half of the standard ones; so that the comparison above is not of nothing with nothing."""
    usage = Usage(100_000, 2_000, 60_000, 10_000)
    for model in ("gpt-6-luna", "gpt-6.1-terra", "gpt-5.6-sol", "gpt-4o-mini"):
        text = Usage(100_000, 2_000) if model == "gpt-4o-mini" else usage
        batch, standard = BOOK.cost(request(text, model, tier="batch")).usd, BOOK.cost(request(text, model)).usd
        assert batch is not None
        assert standard is not None
        assert batch * 2 == standard


@given(st.data(), st.sampled_from([None, "batch"]), text_usages(), times)
@examples(500)
def test_prices_of_other_providers_equal_genai_prices(
    data: st.DataObject, tier: str | None, usage: Usage, start_ns: int
) -> None:
    provider = data.draw(st.sampled_from(sorted(PROVIDERS.keys() - {"openai", "litellm"})))
    model = data.draw(st.sampled_from([model.id for model in PROVIDERS[provider].models]))
    check(request(usage, model, provider=provider, tier=tier, start_ns=start_ns))


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-6.1-terra", "gpt-6-sol", "gpt-5.6-sol", "gpt-5", "gpt-4o", "o3"])
def test_models_in_use_are_priced(model: str) -> None:
    """So that the comparisons above are not all of nothing with nothing."""
    for tier in (None, "default", "priority", "fast"):
        cost = BOOK.cost(request(Usage(1000, 500, 300, 0, 0, 200, web_searches=1, file_searches=1), model, tier=tier))
        assert cost.usd is not None
        assert cost.usd > Decimal("0.0125"), "the searches alone cost that much"


def test_a_price_computed_by_hand() -> None:
    # OpenAI's price list of 2026-10-26: $1 a million input tokens, $0.05 cached, $1.25 written, $5 output.
    usage = Usage(input_tokens=100_000, output_tokens=2_000, cache_read_tokens=60_000, cache_write_tokens=10_000)
    standard = Decimal("0.03") + Decimal("0.003") + Decimal("0.0125") + Decimal("0.01")
    assert BOOK.cost(request(usage, "gpt-6.1-terra")).usd == standard
    assert BOOK.cost(request(usage, "gpt-6.1-terra", tier="flex")).usd == standard / 2
    assert BOOK.cost(request(usage, "gpt-6.1-terra", tier="priority")).usd == standard * 2
    assert BOOK.cost(request(usage, "gpt-6.1-terra", tier="fast")).usd == standard * 2


def test_one_token_beyond_272_000_makes_the_whole_prompt_dearer() -> None:
    below = BOOK.cost(request(Usage(272_000, 1_000_000), "gpt-6.1-terra")).usd
    beyond = BOOK.cost(request(Usage(272_001, 1_000_000), "gpt-6.1-terra")).usd
    assert below == Decimal("0.272") + 5
    assert beyond == Decimal("0.544002") + Decimal("7.5")


def test_audio_is_priced_as_audio() -> None:
    # OpenAI's price list: gpt-audio-mini, $0.60 text and $10 audio input, $2.40 text and $20 audio output.
    usage = Usage(3_000_000, 3_000_000, audio_input_tokens=1_000_000, audio_output_tokens=2_000_000)
    assert BOOK.cost(request(usage, "gpt-audio-mini")).usd == Decimal("1.20") + 10 + Decimal("2.40") + 40


@pytest.mark.parametrize("model", ["gpt-6.3-sol", "gpt-17", "", "llama3"])
def test_an_unknown_model_is_unpriced(model: str) -> None:
    for provenance in Provenance:
        usage = None if provenance is Provenance.UNKNOWN else Usage(10, 10)
        assert BOOK.cost(request(usage, model, provenance=provenance)) == UNPRICED
        assert BOOK.cost(request(usage, model, provenance=provenance, response_model=model)) == UNPRICED


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-sonnet-4-5-fast"),
        ("anthropic", "claude-opus-4-8-turbo"),
        ("anthropic", "claude-haiku-4-5-mini"),
        ("aws.bedrock", "anthropic.claude-sonnet-4-5-fast"),
        ("google", "gemini-2.5-pro-ultra"),
        ("google", "gemini-2.5-flash-fast"),
        ("openai", "gpt-oss-120b"),  # which OpenAI publishes and does not serve
        ("openai", "gpt-oss-20b"),
    ],
)
def test_a_variant_of_a_model_has_not_the_model_s_price(provider: str, model: str) -> None:
    assert BOOK.cost(request(Usage(10, 10), model, provider=provider)) == UNPRICED


@pytest.mark.parametrize(
    "model",
    ["claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5@20250929", "claude-3-5-haiku-latest"],
)
def test_a_version_of_a_model_has_the_model_s_price(model: str) -> None:
    assert BOOK.cost(request(Usage(10, 10), model, provider="anthropic")).usd


def test_a_refused_request_of_an_unpriced_model_costs_nothing() -> None:
    refused = msgspec.structs.replace(request(Usage(), "llama3"), error_type="invalid_request_error")
    assert BOOK.cost(refused) == CostEstimate()
    lost = request(None, "llama3", provenance=Provenance.UNKNOWN)
    assert BOOK.cost(msgspec.structs.replace(lost, error_type="APITimeoutError")) == UNPRICED
    used = msgspec.structs.replace(request(Usage(1), "llama3"), error_type="server_error")
    assert BOOK.cost(used) == UNPRICED


@pytest.mark.parametrize("provider", ["openai-compatible", "my-openai-proxy", "ollama", ""])
def test_an_unknown_provider_is_unpriced(provider: str) -> None:
    assert BOOK.cost(request(Usage(10, 10), provider=provider)) == UNPRICED


@pytest.mark.parametrize("tier", ["ultrafast", "scale", "FLEX", ""])
def test_a_tier_without_a_price_is_unpriced_and_never_at_the_standard_rate(tier: str) -> None:
    assert BOOK.cost(request(Usage(10, 10), "gpt-6-sol", tier=tier)) == UNPRICED


def test_a_tier_is_unpriced_before_its_prices_are_known() -> None:
    usage, day = Usage(200_000), datetime(2026, 10, 12, tzinfo=UTC)
    since = int(day.timestamp()) * 10**9
    assert BOOK.cost(request(usage, tier="flex", start_ns=since)).usd == Decimal("0.01")
    assert BOOK.cost(request(usage, tier="flex", start_ns=since - 1)) == UNPRICED
    assert BOOK.cost(request(usage, tier="flex", start_ns=since)).usd == Decimal("0.01")


@pytest.mark.parametrize(
    ("usage", "model"),
    [
        (Usage(100, 0, 0, 50, 50), "gpt-6-rosalind"),  # 12 hours in the cache
        (Usage(100, 10, audio_input_tokens=1), "gpt-6-luna"),
        (Usage(100, 10, audio_output_tokens=1), "gpt-6-luna"),
        (Usage(100, 10, web_searches=1), "gpt-4"),
        (Usage(100, 10, file_searches=1), "gpt-4"),
        (Usage(100, 10), "text-embedding-3-small"),  # which has no output
        (Usage(100, 10), "whisper-1"),  # by the hour
        (Usage(0, 0), "whisper-1"),
        (Usage(100, 0), "omni-moderation-latest"),  # listed without any price
        (Usage(100, 0, 50, image_input_tokens=60), "gpt-realtime"),  # how many of the cached tokens are images?
    ],
)
def test_a_kind_of_usage_without_a_rate_is_unpriced(usage: Usage, model: str) -> None:
    assert BOOK.cost(request(usage, model)) == UNPRICED
    assert BOOK.cost(request(Usage(100), "text-embedding-3-small")).usd == Decimal("0.000002")


def test_the_model_that_answered_sets_the_price() -> None:
    usage = Usage(1_000_000)
    assert BOOK.cost(request(usage, "gpt-6-sol", response_model="gpt-6-luna-2026-09-22")).usd == Decimal("0.2")
    for another in ("gpt-6.3-sol", "gpt-6-luna-of-tomorrow", "gpt-6-luna-ultra"):
        other = BOOK.cost(request(usage, "gpt-6-luna", response_model=another))
        assert (other.usd, other.unpriced) == (None, 1), "not what the model asked for would have cost"
    assert BOOK.cost(request(usage, "a-deployment", response_model="gpt-6-luna")).usd == Decimal("0.2")


def test_a_provider_that_passes_on_models_does_not_pass_on_their_tiers() -> None:
    usage = Usage(1_000_000)
    assert BOOK.cost(request(usage, "gpt-6-luna", provider="azure.ai.openai")).usd == Decimal("0.2")
    assert BOOK.cost(request(usage, "gpt-6-luna", provider="azure.ai.openai", tier="default")).usd == Decimal("0.2")
    assert BOOK.cost(request(usage, "gpt-6-luna", provider="azure.ai.openai", tier="flex")) == UNPRICED


def test_cache_writes_of_unknown_lifetime_cost_from_the_shorter_to_the_longer() -> None:
    # Anthropic's price list: $3 a million input tokens, $3.75 written for five minutes, $6 for an hour, $15 output.
    assert BOOK.cost(request(Usage(100, 10, 50), "claude-sonnet-4-5", provider="anthropic")).usd is not None
    written = BOOK.cost(request(Usage(1_200, 100, 0, 1_000), "claude-sonnet-4-5", provider="anthropic"))
    assert written == CostEstimate.between(Decimal("0.00585"), Decimal("0.0081"))


@pytest.mark.parametrize(
    ("model", "low", "high"),
    [
        ("ft:gpt-4o-2024-08-06", "0.00187500", "0.00375000"),  # $3.75 a million input tokens
        ("ft:gpt-4o-mini-2024-07-18", "0.00015", "0.0003"),  # $0.30
        ("gpt-5.5-pro", "0.015", "0.03"),
        ("gpt-4", "0.015", "0.03"),
    ],
)
def test_cached_tokens_without_a_listed_rate_cost_from_nothing_to_the_plain_rate(
    model: str, low: str, high: str
) -> None:
    assert BOOK.cost(request(Usage(1_000, 0, 500), model)) == CostEstimate.between(Decimal(low), Decimal(high))
    plain = BOOK.cost(request(Usage(1_000, 0), model))
    assert plain.usd == Decimal(high)
    # What is not known of a cut stream's input may have been cached.
    assert BOOK.cost(request(Usage(1_000, 0), model, provenance=Provenance.PARTIAL)).low == 0


def test_cached_audio_without_a_listed_rate_costs_from_nothing_to_the_rate_of_audio() -> None:
    # gpt-audio: $2.50 a million input tokens, $32 of audio; nothing is listed for cached ones.
    usage = Usage(1_000_000, 0, 600_000, audio_input_tokens=500_000, audio_cache_read_tokens=400_000)
    high = Decimal("1.25") + 16
    low = high - Decimal("0.2") * Decimal("2.5") - Decimal("0.4") * 32
    assert BOOK.cost(request(usage, "gpt-audio")) == CostEstimate.between(low, high)


def test_cache_writes_without_a_listed_rate_are_unpriced() -> None:
    assert BOOK.cost(request(Usage(1_000, 0), "gpt-4.1-mini")).usd == Decimal("0.0004")
    assert BOOK.cost(request(Usage(1_000, 0, 0, 1), "gpt-4.1-mini")) == UNPRICED


@pytest.mark.parametrize("tier", ["batch", "flex"])
def test_long_prompts_on_a_tier_are_dearer_as_on_the_standard_one(tier: str) -> None:
    # gpt-5.5-pro: $30 and $180 a million, twice and one and a half times as much beyond 272,000 tokens; half on a tier.
    usage = Usage(300_000, 1_000)
    standard = BOOK.cost(request(usage, "gpt-5.5-pro")).usd
    assert standard == Decimal("18.27")
    assert BOOK.cost(request(usage, "gpt-5.5-pro", tier=tier)).usd == standard / 2
    assert BOOK.cost(request(Usage(272_000), "gpt-5.5-pro", tier=tier)).usd == Decimal("4.08")


def test_a_tier_that_is_not_known_may_be_the_dearest_and_the_cheapest() -> None:
    # gpt-4.1-mini: $0.40 and $1.60 a million; priority $0.70 and $2.80; cached from $0.10.
    bound, seen = Usage(1_000, 1_000), Usage(1_000, 100)
    for tier in (None, "auto"):
        lost = BOOK.cost(request(None, "gpt-4.1-mini", provenance=Provenance.UNKNOWN, tier=tier, bound=bound))
        assert lost == CostEstimate.between(Decimal(0), Decimal("0.0035"))
        cut = BOOK.cost(request(seen, "gpt-4.1-mini", provenance=Provenance.PARTIAL, tier=tier, bound=bound))
        assert cut == CostEstimate.between(Decimal("0.00026"), Decimal("0.0035"))
        assert BOOK.upper_bound("openai", "gpt-4.1-mini", tier, bound, NOW) == Decimal("0.0035")
        assert BOOK.cost(request(bound, "gpt-4.1-mini", tier=tier)).usd == Decimal("0.002"), "as reported"
    for tier, high in (("default", "0.002"), ("priority", "0.0035")):
        lost = BOOK.cost(request(None, "gpt-4.1-mini", provenance=Provenance.UNKNOWN, tier=tier, bound=bound))
        assert lost.high == BOOK.upper_bound("openai", "gpt-4.1-mini", tier, bound, NOW) == Decimal(high)
    flex = BOOK.cost(request(seen, "gpt-6.1-terra", provenance=Provenance.PARTIAL))
    assert flex.low == BOOK.cost(request(seen, "gpt-6.1-terra", provenance=Provenance.PARTIAL, tier="flex")).low


@pytest.mark.parametrize("hour", range(24))
def test_rebates_by_the_time_of_day(hour: int) -> None:
    at = int(datetime(2026, 11, 20, hour, 29, 59, 999999, tzinfo=UTC).timestamp() * 10**6) * 1000
    for start_ns in (at, at + 1000):
        check(request(Usage(1000, 1000, 500), "deepseek-chat", provider="deepseek", start_ns=start_ns))
        check(request(Usage(1000, 1000, 500), "deepseek-v4-pro", provider="deepseek", start_ns=start_ns))


# What is not known


@st.composite
def truths_and_bounds(draw: st.DrawFn) -> tuple[Usage, Usage, Usage]:
    """What a request used, a part of that, and what it may have used at the most."""
    truth = draw(text_usages())
    truth = msgspec.structs.replace(truth, cache_write_12h_tokens=draw(st.integers(0, truth.cache_write_tokens)))
    seen = Usage(*(draw(st.integers(0, getattr(truth, kind))) for kind in Usage.__struct_fields__))
    more = st.just(0) | st.integers(0, 300_000)
    return truth, seen, Usage(truth.input_tokens + draw(more), truth.output_tokens + draw(more))


@pytest.mark.parametrize("model", each_of([*CHAT_MODELS, "gpt-6.2-sol", "gpt-6.2-astra"]))
@given(st.data(), truths_and_bounds(), st.sampled_from([*TIERS, "ultrafast"]))
@examples(40)
def test_the_true_cost_lies_within_the_estimate(
    model: str, data: st.DataObject, usages: tuple[Usage, Usage, Usage], tier: str | None
) -> None:
    truth, seen, bound = usages
    paid, downgraded = (BOOK.cost(request(truth, model, tier=each)) for each in (tier, "default"))
    if paid.unpriced:  # it has no true price
        return
    assert paid.high is not None
    if tier is None:  # any may serve it
        every = (BOOK.cost(request(truth, model, tier=each)) for each in (*TIERS, "ultrafast") if each != "batch")
        served = [cost for cost in every if not cost.unpriced]
    else:
        served = [paid, downgraded]
    lowest = min(cost.low for cost in served)
    highest = max(cost.high or 0 for cost in served) if tier is None else paid.high
    cut = BOOK.cost(request(seen, model, tier=tier, provenance=Provenance.PARTIAL, bound=bound))
    lost = BOOK.cost(request(None, model, tier=tier, provenance=Provenance.UNKNOWN, bound=bound))
    guessed = BOOK.cost(request(truth + seen, model, tier=tier, provenance=Provenance.ESTIMATED, bound=bound))
    for cost in (cut, lost, guessed):
        assert cost.unpriced == 0
        assert 0 <= cost.low <= lowest
        assert cost.high == BOOK.upper_bound("openai", model, tier, bound, NOW)
        assert cost.high is None or highest <= cost.high
    assert (cut.high is None) == (model in NO_UPPER_BOUND)
    assert BOOK.cost(request(seen, model, tier=tier, provenance=Provenance.PARTIAL)) == CostEstimate.between(
        cut.low, None
    )


NO_UPPER_BOUND = {"gpt-6.2-astra", "gpt-6-cyber", "gpt-6-rosalind", "gpt-5.6-cyber"}
"""What some of their cache writes cost is not known."""


@given(text_usages(), st.data(), times)
@examples(300)
def test_the_true_cost_lies_within_the_estimate_at_other_providers(
    truth: Usage, data: st.DataObject, start_ns: int
) -> None:
    provider = data.draw(st.sampled_from(sorted(PROVIDERS.keys() - {"openai", "litellm"})))
    model = data.draw(st.sampled_from([model.id for model in PROVIDERS[provider].models]))
    paid = BOOK.cost(request(truth, model, provider=provider, start_ns=start_ns))
    seen = Usage(*(data.draw(st.integers(0, getattr(truth, kind))) for kind in Usage.__struct_fields__))
    cut = BOOK.cost(
        request(seen, model, provider=provider, start_ns=start_ns, provenance=Provenance.PARTIAL, bound=truth)
    )
    if paid.high is not None and not cut.unpriced:
        assert cut.low <= paid.low
        assert cut.high is None or paid.high <= cut.high


@given(usages())
@examples(300)
def test_audio_and_images_lie_within_the_estimate(truth: Usage) -> None:
    for model in ("gpt-audio", "gpt-realtime", "gpt-image-1.5", "gpt-4o"):
        paid = BOOK.cost(request(truth, model)).high
        most = BOOK.upper_bound("openai", model, None, truth, NOW)
        assert paid is None or most is None or paid <= most


# --- Sums ---


@given(st.sampled_from(["gpt-6-luna", "gpt-6.2-sol"]), st.sampled_from([None, "flex"]), st.lists(text_usages()))
def test_the_cost_of_a_sum_is_the_sum_of_costs_where_prompts_are_of_one_price(
    model: str, tier: str | None, several: list[Usage]
) -> None:
    several = [usage for usage in several if usage.input_tokens <= 272_000]
    costs = [BOOK.cost(request(usage, model, tier=tier)) for usage in several]
    whole = sum(several, Usage())
    assert BOOK.cost_of_sum("openai", model, tier, whole, NOW) == sum(costs, CostEstimate())


@given(st.sampled_from(["gpt-6-luna", "gpt-6.2-sol"]), text_usages())
def test_the_cost_of_a_sum_is_at_the_length_of_prompt_that_it_is_told(model: str, usage: Usage) -> None:
    cost = BOOK.cost_of_sum("openai", model, None, usage, NOW, prompt_tokens=usage.input_tokens)
    assert cost == BOOK.cost(request(usage, model))


@pytest.mark.parametrize(
    ("model", "tier", "usage"),
    [
        ("no-such-model", None, Usage(1, 1)),
        ("gpt-6-luna", "ultrafast", Usage(1, 1)),
        ("gpt-6.2-astra", None, Usage(9, 1, cache_write_tokens=9)),
        ("gpt-6-luna", None, Usage(1, 1, cache_read_tokens=2)),
    ],
)
def test_a_sum_without_a_price_is_unpriced(model: str, tier: str | None, usage: Usage) -> None:
    assert BOOK.cost_of_sum("openai", model, tier, usage, NOW) == UNPRICED


def test_an_upper_bound_by_hand() -> None:
    # gpt-6.1-terra, all input written to the cache for 12 hours: $2.50 a million tokens, $5 output.
    bound = Usage(100_000, 10_000)
    assert BOOK.upper_bound("openai", "gpt-6.1-terra", "default", bound, NOW) == Decimal("0.25") + Decimal("0.05")
    assert BOOK.upper_bound("openai", "gpt-6.1-terra", "priority", bound, NOW) == Decimal("0.60")
    long = Usage(272_001, 10_000)  # twice the input, one and a half times the output
    assert BOOK.upper_bound("openai", "gpt-6.1-terra", "default", long, NOW) == 272_001 * 5 / Decimal(10**6) + Decimal(
        "0.075"
    )
    assert BOOK.upper_bound("openai", "gpt-17", None, bound, NOW) is None
    assert BOOK.upper_bound("openai", "gpt-6.1-terra", "scale", bound, NOW) is None
    assert BOOK.upper_bound("openai", "gpt-6.1-terra", None, Usage(0, 0), NOW) == 0
    assert BOOK.upper_bound("openai", "gpt-6.1-terra", None, Usage(-1, 0), NOW) is None


def test_searches_count_in_a_bound_as_far_as_somebody_knows_of_them() -> None:
    text = Usage(1_000, 100)
    without = BOOK.upper_bound("openai", "gpt-6-luna", None, text, NOW)
    assert without is not None
    ten = msgspec.structs.replace(text, web_searches=10)  # $10 for a thousand
    assert BOOK.upper_bound("openai", "gpt-6-luna", None, ten, NOW) == without + Decimal("0.10")
    seen = Usage(1_000, 50, web_searches=3)
    cut = BOOK.cost(request(seen, provenance=Provenance.PARTIAL, bound=text))
    assert cut.low >= Decimal("0.03")
    assert cut.high == without + Decimal("0.03")


@pytest.mark.parametrize("seen", [Usage(1_001, 0), Usage(0, 101)])
def test_a_bound_that_did_not_hold_is_none(seen: Usage) -> None:
    cost = BOOK.cost(request(seen, provenance=Provenance.PARTIAL, bound=Usage(1_000, 100)))
    assert cost.low > 0
    assert cost.high is None


def test_a_cut_stream_gives_a_bound_of_the_right_size() -> None:
    # All input may have come from the cache: gpt-6.1-terra, $0.05 a million cached tokens, $5 output.
    bound = BOOK.cost(request(Usage(100_000, 10_000), "gpt-6.1-terra", tier="default", provenance=Provenance.PARTIAL))
    assert bound == CostEstimate.between(Decimal("0.055"), None)
    assert bound.usd is None


def test_a_cut_stream_with_usage_that_has_no_rate_is_unpriced() -> None:
    assert BOOK.cost(request(Usage(100, audio_input_tokens=1), provenance=Provenance.PARTIAL)) == UNPRICED


@pytest.mark.parametrize("provenance", [Provenance.ESTIMATED, Provenance.UNKNOWN])
def test_without_reported_usage_nothing_is_claimed(provenance: Provenance) -> None:
    usage = None if provenance is Provenance.UNKNOWN else Usage(1000, 1000)
    cost = BOOK.cost(request(usage, provenance=provenance))
    assert cost == CostEstimate.between(Decimal(0), None, 0)
    assert cost.usd is None


@given(
    wild_usages,
    st.none() | wild_usages,
    st.sampled_from(Provenance),
    st.sampled_from(["gpt-6-luna", "gpt-realtime", "claude-sonnet-4-5"]),
)
def test_no_usage_makes_pricing_raise_or_pay_money_back(
    usage: Usage, bound: Usage | None, provenance: Provenance, model: str
) -> None:
    provider = "anthropic" if model.startswith("claude") else "openai"
    cost = BOOK.cost(request(usage, model, provenance=provenance, provider=provider, bound=bound))
    assert cost.low >= 0
    assert cost.high is None or cost.high >= cost.low


@pytest.mark.parametrize(
    ("usage", "total", "meant"),
    [
        (Usage(100, 0, cache_read_tokens=101), None, [Usage(100), Usage(201, cache_read_tokens=101)]),
        (
            Usage(100, 0, cache_read_tokens=60, cache_write_tokens=60),
            None,
            [Usage(100, cache_read_tokens=100), Usage(220, cache_read_tokens=60, cache_write_tokens=60)],
        ),
        (Usage(100, 10, reasoning_tokens=11), None, [Usage(100, 10), Usage(100, 21, reasoning_tokens=11)]),
        (Usage(100, 20, reasoning_tokens=300), 420, [Usage(100, 20), Usage(100, 320, reasoning_tokens=300)]),
        (Usage(1_000, 20, cache_read_tokens=5_000), 1_020, [Usage(1_000, 20), Usage(1_000, 20, cache_read_tokens=999)]),
        (Usage(1_000, 20, cache_read_tokens=5_000), 6_020, [Usage(6_000, 20, cache_read_tokens=5_000)]),
        (Usage(100, 20), 150, [Usage(100, 20), Usage(130, 20), Usage(100, 50)]),
        (Usage(100, 20, reasoning_tokens=15), 135, [Usage(100, 20), Usage(100, 35, reasoning_tokens=15)]),
        (Usage(100, 100, cache_read_tokens=-1), None, [Usage(100, 100), Usage(100, 100, cache_read_tokens=100)]),
        (Usage(100, 100, image_input_tokens=101), None, [Usage(100, 100), Usage(201, 100)]),
    ],
)
def test_contradictory_usage_costs_as_much_as_any_reading(usage: Usage, total: int | None, meant: list[Usage]) -> None:
    event = msgspec.structs.replace(request(usage), total_tokens=total, contradiction=contradiction_in(usage, total))
    assert event.contradiction
    cost = BOOK.cost(event)
    assert cost.usd is None
    assert cost.high is not None
    for reading in meant:
        exact = BOOK.cost(request(reading)).usd
        assert exact is not None
        assert cost.low <= exact <= cost.high


@pytest.mark.parametrize(
    ("usage", "total"),
    [
        (Usage(-1, 0), None),
        (Usage(100, -1), None),
        (Usage(100, 100, web_searches=-1), None),
        (Usage(100, 20), 5),
        (Usage(100, 20), 0),
        (Usage(0, 0, reasoning_tokens=1), 0),
    ],
)
def test_contradictory_usage_without_a_consistent_reading_is_unpriced(usage: Usage, total: int | None) -> None:
    event = msgspec.structs.replace(request(usage), total_tokens=total, contradiction=contradiction_in(usage, total))
    assert BOOK.cost(event) == UNPRICED


@example(Usage(0, 1), 1, 2)
@given(usages(), st.integers(0, 10**7), st.integers(0, 3_000))
def test_no_contradiction_has_an_exact_cost_and_each_reading_is_within(usage: Usage, total: int, more: int) -> None:
    usage = msgspec.structs.replace(usage, reasoning_tokens=usage.reasoning_tokens + more)
    contradiction = contradiction_in(usage, total)
    event = msgspec.structs.replace(request(usage), total_tokens=total, contradiction=contradiction)
    cost = BOOK.cost(event)
    if contradiction is None:
        return
    assert cost.usd is None
    for reading in readings(usage, total):
        assert is_consistent(reading)
        exact = BOOK.cost(request(reading))
        if cost.high is not None:
            assert exact.usd is not None
            assert cost.low <= exact.usd <= cost.high


@pytest.mark.parametrize("start_ns", [-1, -(2**70), 2**62, 2**70, 0])
def test_no_time_makes_pricing_raise(start_ns: int) -> None:
    cost = BOOK.cost(request(Usage(100, 10), start_ns=start_ns))
    assert cost == UNPRICED or cost.usd is not None


def test_an_application_that_lowers_decimal_precision_does_not_round_its_bill() -> None:
    exact = BOOK.cost(request(Usage(123_457, 76_543))).usd
    with localcontext() as context:
        context.prec = 3
        cost = BOOK.cost(request(Usage(123_457, 76_543)))
        twice = cost + cost
    assert cost.usd == exact
    assert twice.usd == exact * 2 if exact else False


# The price book


def test_rates_are_loaded_when_needed() -> None:
    code = """
import sys
from runmeter.engine.prices.price_book import PriceBook
book = PriceBook()
assert not book.loaded
assert "genai_prices" not in sys.modules
book.load()
assert book.loaded
assert "genai_prices" in sys.modules
"""
    output_of(python(code))


def test_a_price_book_loads_itself_once() -> None:
    book = PriceBook()
    cost = book.cost(request(Usage(1000, 100)))
    assert cost.usd is not None
    assert book.loaded
    book.load()
    assert book.cost(request(Usage(1000, 100))) == cost


def test_a_price_book_may_be_used_by_many_threads() -> None:
    book = PriceBook()
    requests = [request(Usage(count), tier=tier) for count in range(100) for tier in (None, "flex", "ultrafast")]
    found: list[list[CostEstimate]] = []
    barrier = threading.Barrier(8)

    def price() -> None:
        barrier.wait()
        found.append([book.cost(one) for one in requests])

    threads = [threading.Thread(target=price) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[BOOK.cost(one) for one in requests]] * 8


def test_memory_does_not_grow_with_the_names_in_use() -> None:
    book = PriceBook()
    for number in range(5_000):
        assert (
            book.cost(request(Usage(1), "gpt-6-luna", response_model=f"made-up-{number}", provider="nobody"))
            == UNPRICED
        )
    kept = [
        period
        for by_model in book._periods.values()
        for by_answer in by_model.values()
        for by_tier in by_answer.values()
        for period in by_tier.values()
    ]
    assert 0 < len(kept) <= 4_096
