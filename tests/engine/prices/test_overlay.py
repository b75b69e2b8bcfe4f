"""Prices from files: the shipped ones by hand, a user's own, and what a bad file says."""

from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import genai_prices
import msgspec
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st
from strategies import NOW, text_usages

from runmeter.engine import ConfigurationError, CostEstimate, PriceBook, Provenance, TokenUsage, Unpriced, Usage
from runmeter.engine.prices.overlay import NO_PRICES, OverlayPrices, merge, shipped_overlay
from runmeter.engine.prices.rates import Price

SHIPPED = PriceBook()
UNPRICED = CostEstimate(high_units=None, unpriced=1)
OPENAI = next(provider for provider in get_snapshot().providers if provider.id == "openai")
MILLION = 10**6


def request(
    usage: Usage | None,
    model: str,
    tier: str | None = None,
    *,
    provider: str = "openai",
    at: datetime | None = None,
    response_model: str | None = None,
    bound: Usage | None = None,
) -> TokenUsage:
    start_ns = NOW if at is None else int(at.replace(tzinfo=UTC).timestamp()) * 10**9
    return TokenUsage(
        run_id="1" * 32,
        seq=1,
        time_ns=start_ns,
        call_id=1,
        provider=provider,
        operation="chat",
        model=model,
        provenance=Provenance.UNKNOWN if usage is None else Provenance.REPORTED,
        usage=usage,
        start_ns=start_ns,
        duration_ns=0,
        response_model=response_model,
        service_tier=tier,
        bound=bound,
    )


def write(path: Path, text: str) -> Path:
    file = path / "prices.toml"
    file.write_text(text, "utf-8")
    return file


def book(path: Path, text: str) -> PriceBook:
    return PriceBook(write(path, text))


# The shipped file


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [
        ("gpt-6.2-sol", Usage(200_000, 100_000), "1.40"),  # $2 and $10 a million
        ("gpt-6.2-sol", Usage(200_000, 0, 200_000), "0.02"),  # $0.10
        ("gpt-6.2-sol", Usage(200_000, 0, 0, 200_000), "0.50"),  # $2.50
        ("gpt-6.2-sol", Usage(200_000, 0, 0, 200_000, 200_000), "1.00"),  # $5
        ("gpt-6.2-sol", Usage(200_000, 0, 0, 200_000, 100_000), "0.75"),
        ("gpt-6.2-sol", Usage(272_000, 100_000), "1.544"),
        ("gpt-6.2-sol", Usage(272_001, 100_000), "2.588004"),  # $4 and $15
        ("gpt-6.2-sol", Usage(300_000, 0, 100_000, 100_000, 100_000), "1.42"),  # $4, $0.20 and $10
        ("gpt-6.2-sol", Usage(100_000, web_searches=2, file_searches=4), "0.23"),  # $10 and $2.50 for a thousand
        ("gpt-6.2-sol-2026-11-17", Usage(100_000), "0.20"),
        ("gpt-6.2-astra", Usage(100_000, 100_000, 50_000), "4.42"),  # $8, $0.40 and $40
        ("gpt-6.1-terra", Usage(100_000, 0, 0, 100_000, 100_000), "0.25"),  # $2.50, where genai-prices has the rest
        ("gpt-6-luna", Usage(300_000, 0, 0, 300_000, 300_000), "0.15"),  # twice $0.25, as the prompt is long
    ],
)
def test_what_genai_prices_lacks_is_priced_as_openai_lists_it(model: str, usage: Usage, usd: str) -> None:
    assert SHIPPED.cost(request(usage, model)).usd == Decimal(usd)


@pytest.mark.parametrize(
    ("tier", "at", "times"),
    [
        (None, None, "1"),
        ("default", None, "1"),
        ("flex", None, "0.5"),
        ("batch", None, "0.5"),
        ("priority", None, "2"),
        ("fast", None, "2"),
        ("ultrafast", None, "3"),
        ("ultrafast", datetime(2027, 2, 28, 23, 59, 59), "3"),
        ("ultrafast", datetime(2027, 3, 1), "6"),
        ("priority", datetime(2027, 3, 1), "2"),
    ],
)
def test_tiers_multiply_tokens_and_not_searches(tier: str | None, at: datetime | None, times: str) -> None:
    text = Usage(300_000, 50_000, 100_000, 50_000, 20_000)
    standard = Decimal("0.02") + Decimal("0.15") + Decimal("0.2") + Decimal("0.6") + Decimal("0.75")
    assert SHIPPED.cost(request(text, "gpt-6.2-sol", tier, at=at)).usd == standard * Decimal(times)
    searches = SHIPPED.cost(request(text + Usage(web_searches=1), "gpt-6.2-sol", tier, at=at)).usd
    assert searches == standard * Decimal(times) + Decimal("0.01")


@given(text_usages())
def test_ultrafast_is_six_times_what_genai_prices_says_of_the_standard_tier(usage: Usage) -> None:
    listed = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        ),
        "gpt-6-astra",
        provider_id="openai",
        genai_request_timestamp=datetime.fromtimestamp(NOW // 10**9, UTC),
    )
    assert SHIPPED.cost(request(usage, "gpt-6-astra", "ultrafast")).usd == 6 * listed.total_price


def test_nothing_is_priced_before_it_is_on_sale_or_on_a_tier_that_it_lacks() -> None:
    usage = Usage(100)
    assert SHIPPED.cost(request(usage, "gpt-6.2-sol", at=datetime(2026, 11, 16, 23, 59, 59))) == UNPRICED
    assert SHIPPED.cost(request(usage, "gpt-6.2-sol", at=datetime(2026, 11, 17))).usd == Decimal("0.0002")
    assert SHIPPED.cost(request(usage, "gpt-6.2-sol", "scale")) == UNPRICED
    assert SHIPPED.cost(request(usage, "gpt-6.2-astra", "ultrafast")) == UNPRICED
    assert SHIPPED.cost(request(usage, "gpt-6.2-sol", provider="azure.ai.openai")) == UNPRICED


def test_a_price_that_is_not_known_is_not_guessed() -> None:
    assert SHIPPED.cost(request(Usage(100, 0, 0, 1), "gpt-6.2-astra")) == UNPRICED
    assert SHIPPED.cost(request(Usage(100, 0, 0, 1, 1), "gpt-6.2-astra")) == UNPRICED
    assert SHIPPED.cost(request(Usage(100, 0, 0, 1), "gpt-6-rosalind")).usd is not None
    assert SHIPPED.cost(request(Usage(100, 0, 0, 1, 1), "gpt-6-rosalind")) == UNPRICED
    bound = Usage(100, 100)
    assert SHIPPED.upper_bound("openai", "gpt-6.2-astra", None, bound, NOW) is None
    assert SHIPPED.cost(request(None, "gpt-6.2-astra", bound=bound)) == CostEstimate(high_units=None)


def test_the_shipped_file_names_its_sources_and_only_models_that_exist_somewhere() -> None:
    overlay = shipped_overlay()
    entries = [entry for found in overlay._entries.values() for entry in found]
    assert all(entry.source for entry in entries)
    known = {model.id for model in OPENAI.models}
    for entry in entries:
        assert entry.provider == "openai"
        assert entry.model in known or overlay.find("openai", entry.model, date(2026, 11, 22)), entry.model


# A user's file

PRIVATE = """
[[prices]]
provider = "my-gateway"
model = "House-Model"
source = "contract of 2026"
rates = { input_mtok = 0.1, cache_read_mtok = 0.0000001, output_mtok = 0.3 }
thresholds = [{ above = 10, input = 3, output = 1 }, { above = 5, input = 2, output = 1.5 }]
tiers = { flex = 0.25 }
context_window = 32_000
"""


def test_private_models_of_any_provider_can_have_a_price(tmp_path: Path) -> None:
    own = book(tmp_path, PRIVATE)

    def usd(usage: Usage, tier: str | None = None, model: str = "house-model") -> Decimal | None:
        return own.cost(request(usage, model, tier, provider="my-gateway")).usd

    assert usd(Usage(5, 10)) == Decimal("3.5e-6")
    assert usd(Usage(6, 10)) == Decimal("1.2e-6") + Decimal("4.5e-6")
    assert usd(Usage(11, 10)) == Decimal("3.3e-6") + Decimal("3e-6")
    assert usd(Usage(5, 0, 1)) == Decimal("4e-7") + Decimal("1e-13")
    assert usd(Usage(5, 10), "flex") == Decimal("3.5e-6") / 4
    assert usd(Usage(5, 10), "priority") is None
    assert usd(Usage(5, 10), model="HOUSE-MODEL") == Decimal("3.5e-6")
    assert usd(Usage(5, 10), model="house-model-2") is None
    assert usd(Usage(5, 10, web_searches=1)) is None
    assert own.cost(request(Usage(5, 10), "house-model", provider="openai")) == UNPRICED
    most = own.upper_bound("my-gateway", "house-model", None, Usage(20, 10), NOW)
    assert most == Decimal("6e-6") + Decimal("3e-6")


def test_the_dearest_length_is_not_always_the_longest(tmp_path: Path) -> None:
    own = book(tmp_path, PRIVATE)
    most = own.upper_bound("my-gateway", "house-model", None, Usage(11, 1_000), NOW)
    assert most is not None
    assert most >= (own.cost(request(Usage(10, 1_000), "house-model", provider="my-gateway")).usd or 0) > 0
    cut = request(Usage(10, 1_000), "house-model", provider="my-gateway")
    cut = msgspec.structs.replace(cut, provenance=Provenance.PARTIAL)
    longer = own.cost(request(Usage(11, 1_000, 11), "house-model", provider="my-gateway")).usd
    assert longer is not None
    assert own.cost(cut).low <= longer, "it may have been longer than was seen"


def test_the_users_rates_win_one_by_one(tmp_path: Path) -> None:
    own = book(
        tmp_path,
        """
[[prices]]
provider = "openai"
model = "gpt-6-luna"
rates = { output_mtok = 0.4, web_searches_kcount = 5 }
tiers = { priority = 1.5 }
""",
    )
    usage = Usage(100_000, 100_000, 0, 50_000, 50_000, web_searches=1)
    fee = Decimal("0.005")
    standard = Decimal("0.005") + Decimal("0.0125") + Decimal("0.04")  # input and writes as listed
    assert own.cost(request(usage, "gpt-6-luna")).usd == standard + fee
    assert own.cost(request(usage, "gpt-6-luna-2026-09-22")).usd == standard + fee
    assert own.cost(request(usage, "gpt-6-luna", "priority")).usd == standard * Decimal("1.5") + fee
    flex = Decimal("0.0025") + Decimal("0.00625") + Decimal("0.025")  # as genai-prices lists it
    assert own.cost(request(usage, "gpt-6-luna", "flex")).usd == flex + fee
    assert own.cost(request(usage, "gpt-6-sol")) == SHIPPED.cost(request(usage, "gpt-6-sol"))


def test_the_users_file_fills_what_the_shipped_one_leaves_open(tmp_path: Path) -> None:
    own = book(
        tmp_path,
        """
[[prices]]
provider = "openai"
model = "gpt-6.2-astra"
rates = { cache_write_mtok = 10 }
cache_write_12h = 2
tiers = { ultrafast = 4 }
""",
    )
    assert own.cost(request(Usage(100_000, 0, 0, 100_000), "gpt-6.2-astra")).usd == 1
    assert own.cost(request(Usage(100_000, 0, 0, 100_000, 100_000), "gpt-6.2-astra", "ultrafast")).usd == 8
    assert own.upper_bound("openai", "gpt-6.2-astra", "default", Usage(100_000, 0), NOW) == 2
    assert own.upper_bound("openai", "gpt-6.2-astra", None, Usage(100_000, 0), NOW) == 8, "as `ultrafast` might"


def test_a_user_may_declare_a_price_unknown(tmp_path: Path) -> None:
    entry = '[[prices]]\nprovider = "openai"\nmodel = "gpt-6-luna"\nunpriced = ["cache_read_mtok", "output_mtok"]\n'
    own = book(tmp_path, entry)
    assert own.cost(request(Usage(100), "gpt-6-luna")).usd == Decimal("0.00001")
    assert own.cost(request(Usage(100, 0, 1), "gpt-6-luna")) == UNPRICED
    assert own.cost(request(Usage(100, 1), "gpt-6-luna")) == UNPRICED
    assert own.upper_bound("openai", "gpt-6-luna", None, Usage(100, 0), NOW) is None


@pytest.mark.parametrize("name", ["azure", "azure.ai.openai"])
def test_providers_may_be_called_as_in_events_or_as_in_genai_prices(tmp_path: Path, name: str) -> None:
    own = book(tmp_path, f'[[prices]]\nprovider = "{name}"\nmodel = "gpt-6-luna"\ntiers = {{ priority = 1.5 }}\n')
    assert own.cost(request(Usage(MILLION), "gpt-6-luna", "priority", provider="azure.ai.openai")).usd == Decimal("0.3")


def test_entries_of_one_model_add_up_by_date(tmp_path: Path) -> None:
    own = book(
        tmp_path,
        """
[[prices]]
provider = "p"
model = "m"
since = 2026-06-01
rates = { input_mtok = 2 }

[[prices]]
provider = "p"
model = "m"
since = 2026-01-01
rates = { input_mtok = 1, output_mtok = 5 }

[[prices]]
provider = "p"
model = "m"
since = 2026-09-01
unpriced = ["output_mtok"]
""",
    )

    def usd(at: datetime) -> Decimal | None:
        return own.cost(request(Usage(MILLION, MILLION), "m", provider="p", at=at)).usd

    assert usd(datetime(2025, 12, 31)) is None
    assert usd(datetime(2026, 1, 1)) == 6
    assert usd(datetime(2026, 5, 31, 23, 59, 59)) == 6
    assert usd(datetime(2026, 6, 1)) == 7
    assert usd(datetime(2026, 9, 1)) is None


def test_an_exact_name_comes_before_the_one_without_its_date(tmp_path: Path) -> None:
    entry = '[[prices]]\nprovider = "p"\nmodel = "{}"\nrates = {{ input_mtok = {} }}\n'
    own = book(tmp_path, entry.format("m", 1) + entry.format("m-2026-01-01", 2))
    assert own.cost(request(Usage(MILLION), "m-2026-01-01", provider="p")).usd == 2
    assert own.cost(request(Usage(MILLION), "m-2026-02-02", provider="p")).usd == 1
    assert own.cost(request(Usage(MILLION), "m", provider="p", response_model="m-2026-01-01")).usd == 2


@given(st.decimals(0, 999_999, places=12), st.decimals(0, 999_999, places=12), st.integers(0, 10**18))
def test_every_product_is_exact(
    tmp_path_factory: pytest.TempPathFactory, rate: Decimal, times: Decimal, n: int
) -> None:
    path = tmp_path_factory.mktemp("overlay")
    text = (
        f'[[prices]]\nprovider = "p"\nmodel = "m"\nrates = {{ input_mtok = {rate:f} }}\ntiers = {{ t = {times:f} }}\n'
    )
    cost = book(path, text).cost(request(Usage(n), "m", "t", provider="p")).usd
    assert cost is not None
    assert Fraction(cost) == Fraction(rate) * Fraction(times) * n / MILLION


def test_more_decimals_than_money_has_are_refused(tmp_path: Path) -> None:
    model = '[[prices]]\nprovider = "p"\nmodel = "m"\n'
    third = "0.333333333333"
    rate, times = f"rates = {{ input_mtok = {third} }}\n", f"tiers = {{ t = {third} }}\n"
    since = "since = 2026-01-01\n"
    assert book(tmp_path, model + rate + times).cost(request(Usage(1), "m", "t", provider="p")).usd is not None
    for text in (model + rate + times + f"cache_write_12h = {third}\n", model + since + f"cache_write_12h = {third}\n"):
        with pytest.raises(ConfigurationError, match="42 decimals, and more than 36 would not be exact"):
            book(tmp_path, text if rate in text else model + rate + times + text)


TWICE = "{ above = 1, input = 2, output = 2 }"
BAD = """
[[prices]]
provider = "openai"
model = "good"

[[prices]]
model = "bad"
"""


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('rates = { input_mtok = "2" }', "rates.input_mtok"),
        ("rates = { input_mtok = -1 }", "rates.input_mtok"),
        ("rates = { input_mtok = true }", "rates.input_mtok"),
        ("rates = { input_mtok = nan }", "rates.input_mtok"),
        ("rates = { input_mtok = inf }", "rates.input_mtok"),
        ("rates = { input_mtok = 1e300 }", "rates.input_mtok"),
        ("rates = { input_mtok = 1e-13 }", "rates.input_mtok"),
        ("rates = { input = 2 }", "rates"),
        ("rates = 3", "rates"),
        ("rates = { cache_write_12h_mtok = 2 }", "rates"),
        ("input_mtok = 2", "input_mtok"),
        ("tiers = { flex = -0.5 }", "tiers.flex"),
        ('tiers = { flex = "half" }', "tiers.flex"),
        ("tiers = [1]", "tiers"),
        ("cache_write_12h = -2", "cache_write_12h"),
        ('since = "soon"', "since"),
        ("since = 2026-01-01T12:00:00", "since"),
        ('unpriced = ["inputs"]', "unpriced"),
        ('rates = { input_mtok = 1 }\nunpriced = ["input_mtok"]', "unpriced"),
        ("thresholds = [{ above = 1, input = 2, output = 2 }]", "thresholds"),
        ("rates = { input_mtok = 1 }\nthresholds = [{ above = 1, input = 2 }]", "thresholds"),
        ("rates = { input_mtok = 1 }\nthresholds = [{ above = -1, input = 2, output = 2 }]", "thresholds"),
        ("rates = { input_mtok = 1 }\nthresholds = [{ above = 1, input = -2, output = 2 }]", "thresholds.input"),
        ("rates = { input_mtok = 1 }\nthresholds = 3", "thresholds"),
        (f"rates = {{ input_mtok = 1 }}\nthresholds = [{TWICE}, {TWICE}]", "thresholds"),
        ('context_window = "large"', "context_window"),
        ("context_window = 0", "context_window"),
        ("tiers = { default = 2 }", "tiers"),
        ("tiers = { auto = 2 }", "tiers"),
        ('provider = ""', "provider"),
        ("modle = 1", "modle"),
    ],
)
def test_a_bad_entry_is_named_with_its_file_and_field(tmp_path: Path, line: str, field: str) -> None:
    provider = "" if line.startswith("provider") else 'provider = "openai"\n'
    file = write(tmp_path, BAD + provider + line)
    with pytest.raises(ConfigurationError) as caught:
        PriceBook(file)
    message = str(caught.value)
    assert str(file) in message
    assert "entry 2 (bad)" in message
    assert field in message.partition("entry 2 (bad)")[2]


def test_an_entry_without_a_model_and_a_second_one_for_a_day_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"entry 1 \(without a model\).*`model`"):
        book(tmp_path, '[[prices]]\nprovider = "p"')
    entry = '[[prices]]\nprovider = "azure"\nmodel = "m"\nsince = 2026-01-01\n'
    with pytest.raises(ConfigurationError, match=r"entry 2 .*`since`"):
        book(tmp_path, entry + entry.replace("azure", "azure.ai.openai").replace('"m"', '"M"'))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[[prices", "not TOML"),
        (b"prices = " + b"[" * 20_000 + b"]" * 20_000, "nests too deeply"),
        (b"[[prices]]\nmodel = " + b"1" * 5_000, "not TOML"),
        (b"\xff\xfe", "cannot be read"),
        (b"[prices]\nmodel = 1", "nothing else"),
        (b"prices = [1]", "nothing else"),
        (b"[[price]]\nmodel = 'm'", "nothing else"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_overlay_is_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"mine\.toml.*{says}"):
        PriceBook(str(file))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert book(tmp_path, "").cost(request(Usage(10), "gpt-6-luna")) == SHIPPED.cost(request(Usage(10), "gpt-6-luna"))


# Which source counts


def test_the_shipped_file_is_silent_where_genai_prices_knows_the_rate_or_the_tier() -> None:
    one, two, three = (Price(Decimal(usd)) for usd in (1, 2, 3))
    shipped = OverlayPrices({"input_mtok": one, "output_mtok": one}, {"flex": Decimal(7)}, Decimal(2))
    prices, _ = merge(NO_PRICES, {"input_mtok": two}, None, shipped, None)
    assert prices == {"input_mtok": two, "output_mtok": one}
    prices, _ = merge(NO_PRICES, {"input_mtok": two}, {"input_mtok": three}, shipped, "flex")
    assert prices == {"input_mtok": three, "output_mtok": one}
    prices, _ = merge(NO_PRICES, {"input_mtok": two}, None, shipped, "flex")
    assert prices == {"input_mtok": Price(Decimal(14)), "output_mtok": Price(Decimal(7))}
    assert merge(NO_PRICES, {"input_mtok": two}, None, shipped, "priority") == ({}, frozenset())


def test_a_rate_declared_unknown_is_silent_too_once_genai_prices_has_it() -> None:
    one, two = Price(Decimal(1)), Price(Decimal(2))
    shipped = OverlayPrices({"input_mtok": one}, unpriced=frozenset({"cache_write_mtok"}))
    assert merge(NO_PRICES, {}, None, shipped, None)[1] == {"cache_write_mtok"}
    prices, unpriced = merge(NO_PRICES, {"cache_write_mtok": two}, None, shipped, None)
    assert prices == {"input_mtok": one, "cache_write_mtok": two}
    assert not unpriced


# Lists


def test_models_are_listed_with_what_they_cost(tmp_path: Path) -> None:
    own = book(tmp_path, PRIVATE)
    listed = {(row.provider, row.model): row for row in own.models(NOW)}
    terra, sol = listed["openai", "gpt-6.1-terra"], listed["openai", "gpt-6.2-sol"]
    rates = [terra.input, terra.cache_read, terra.cache_write, terra.cache_write_12h, terra.output]
    assert rates == [Decimal(rate) for rate in ("1", "0.05", "1.25", "2.5", "5")]
    assert (terra.source, terra.context_window) == ("genai-prices", 1_050_000)
    assert (sol.source, sol.input, sol.output) == ("overlay", Decimal(2), Decimal(10))
    assert listed["openai", "gpt-6.2-astra"].cache_write is None
    house = listed["my-gateway", "house-model"]
    assert (house.source, house.input, house.context_window) == ("overlay", Decimal("0.1"), 32_000)
    assert ("openai", "whisper-1") not in listed
    assert len(listed) > 500
    early = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 10**9
    assert ("openai", "gpt-6.2-sol") not in {(row.provider, row.model) for row in own.models(early)}
    assert len(own.models()) > 500


def test_every_listed_price_is_what_a_request_costs() -> None:
    for row in SHIPPED.models(NOW):
        if row.provider == "openai":
            cost = SHIPPED.cost(request(Usage(1_000), row.model)).usd
            assert cost is None or cost == row.input / 1_000, row.model


def test_what_has_no_price_is_listed() -> None:
    own = PriceBook()
    for usage, model, tier in [
        (Usage(1), "gpt-17", None),
        (Usage(1), "gpt-17", None),
        (Usage(1), "gpt-6-luna", "scale"),
        (Usage(1), "gpt-6-luna", None),
        (Usage(1, audio_input_tokens=1), "gpt-6-luna", None),
    ]:
        own.cost(request(usage, model, tier))
    own.cost(request(Usage(1), "gpt-6-luna", response_model="gpt-17"))
    assert own.unpriced() == [
        Unpriced("openai", "gpt-17", None, 3),
        Unpriced("openai", "gpt-6-luna", "scale", 1),
        Unpriced("openai", "gpt-6-luna", None, 1),
    ]


def test_the_list_of_what_has_no_price_is_bounded_and_loses_no_count() -> None:
    own = PriceBook()
    for number in range(1_500):
        own.cost(request(Usage(1), f"made-up-{number}"))
    listed = own.unpriced()
    assert len(listed) == 1_001
    assert sum(row.times for row in listed) == 1_500
    assert listed[0] == Unpriced("other", "other", None, 500)
