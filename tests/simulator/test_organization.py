"""The organization's usage and costs, read by the real client's admin resource."""

from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from openai import AsyncOpenAI
from simulator_support import connect

from runmeter.engine import PriceBook, Usage
from runmeter.simulator import Fault, Reply, Simulator

LUNA, SOL, SMALL = "gpt-6-luna", "gpt-6-sol", "text-embedding-3-small"
DAY = 86_400
NOON = 1_795_305_600 + 12 * 3_600
ADMIN = "sk-admin-simulated"
PRICES = PriceBook()


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = float(NOON)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(clock: Clock) -> AsyncIterator[Simulator]:
    simulator = Simulator(clock=clock)
    async with simulator:
        yield simulator


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with connect(simulator.url, admin_api_key=ADMIN, _strict_response_validation=True) as client:
        yield client


async def ask(client: AsyncOpenAI, model: str = LUNA, text: str = "Hello there.", **settings: Any) -> Any:
    return await client.responses.create(model=model, input=text, **settings)


async def completions(client: AsyncOpenAI, **params: Any) -> Any:
    return await client.admin.organization.usage.completions(**{"start_time": NOON - DAY, **params})


async def costs(client: AsyncOpenAI, **params: Any) -> Any:
    return await client.admin.organization.usage.costs(**{"start_time": NOON - DAY, **params})


def results(page: Any) -> Sequence[Any]:
    return [result for bucket in page.data for result in bucket.results]


# --- Usage ---


async def test_usage_is_by_day_and_what_the_answers_said(client: AsyncOpenAI, clock: Clock) -> None:
    told = [(await ask(client, text="A long story. " * times)).usage for times in (1, 500, 500)]
    clock.now += DAY
    told.append((await ask(client)).usage)
    page = await completions(client, start_time=NOON)
    assert [(bucket.start_time, bucket.end_time) for bucket in page.data] == [
        (NOON // DAY * DAY, NOON // DAY * DAY + DAY),
        (NOON // DAY * DAY + DAY, NOON // DAY * DAY + 2 * DAY),
    ]
    first, second = results(page)
    assert (first.num_model_requests, second.num_model_requests) == (3, 1)
    assert first.input_tokens == sum(usage.input_tokens for usage in told[:3])
    assert first.output_tokens == sum(usage.output_tokens for usage in told[:3])
    assert first.input_cached_tokens == sum(usage.input_tokens_details.cached_tokens for usage in told[:3]) > 0
    assert first.input_cache_write_tokens == sum(usage.input_tokens_details.cache_write_tokens for usage in told[:3])
    kinds = first.input_uncached_tokens, first.input_cached_tokens, first.input_cache_write_tokens
    assert sum(kinds) == first.input_tokens
    assert (first.input_cache_write_12h_tokens, first.model, first.project_id, first.batch) == (0, None, None, None)
    assert second.input_tokens == told[3].input_tokens


async def test_usage_is_grouped_by_what_was_asked_for(client: AsyncOpenAI) -> None:
    support = client.with_options(default_headers={"OpenAI-Project": "proj_support"})
    await ask(client)
    await ask(client, SOL)
    await ask(support, SOL, service_tier="flex")
    page = await completions(client, group_by=["model", "project_id", "service_tier", "batch", "api_key_id"])
    rows = [(row.project_id, row.model, row.service_tier, row.batch, row.num_model_requests) for row in results(page)]
    assert rows == [
        ("proj_default", LUNA, "default", False, 1),
        ("proj_default", SOL, "default", False, 1),
        ("proj_support", SOL, "flex", False, 1),
    ]
    assert len({row.api_key_id for row in results(page)}) == 1


@pytest.mark.parametrize(
    ("params", "requests"),
    [
        ({"models": [SOL]}, 1),
        ({"models": [SOL, LUNA]}, 3),
        ({"project_ids": ["proj_support"]}, 1),
        ({"project_ids": ["proj_nobodys"]}, 0),
        ({"batch": True}, 0),
        ({"batch": False}, 3),
        ({"user_ids": ["user_1"]}, 0),
        ({"api_key_ids": ["key_1"]}, 0),
        ({"end_time": NOON - DAY + 1}, 0),
        ({"start_time": NOON + DAY, "end_time": NOON + 2 * DAY}, 0),
    ],
)
async def test_usage_is_filtered(client: AsyncOpenAI, params: dict[str, Any], requests: int) -> None:
    await ask(client)
    await ask(client.with_options(default_headers={"OpenAI-Project": "proj_support"}))
    await ask(client, SOL)
    page = await completions(client, **params)
    assert sum(row.num_model_requests for row in results(page)) == requests


async def test_a_key_sees_its_own_figures_by_its_id(client: AsyncOpenAI) -> None:
    await ask(client)
    for _ in range(2):
        await ask(client.with_options(api_key="sk-other"))
    rows = results(await completions(client, group_by=["api_key_id"]))
    assert sorted(row.num_model_requests for row in rows) == [1, 2]
    (own,) = results(await completions(client, api_key_ids=[rows[0].api_key_id]))
    assert own.num_model_requests == rows[0].num_model_requests


async def test_embeddings_are_apart_from_completions(client: AsyncOpenAI) -> None:
    await ask(client)
    # Not base64, as the client asks for by itself: it validates before it decodes it.
    told = (await client.embeddings.create(model=SMALL, input="Where is it?", encoding_format="float")).usage
    page = await client.admin.organization.usage.embeddings(start_time=NOON, group_by=["model"])
    (row,) = results(page)
    assert (row.model, row.input_tokens, row.num_model_requests) == (SMALL, told.prompt_tokens, 1)
    assert [row.model for row in results(await completions(client, group_by=["model"]))] == [LUNA]


async def test_chat_completions_and_cut_streams_are_billed_as_far_as_they_came(
    simulator: Simulator, client: AsyncOpenAI
) -> None:
    messages: list[Any] = [{"role": "user", "content": "The sky is grey today."}]
    whole = (await client.chat.completions.create(model=LUNA, messages=messages)).usage
    assert whole is not None
    simulator.script(Reply("A longer answer. " * 20))
    simulator.inject(Fault("stream_cut"))
    with pytest.raises((openai.APIError, httpx2.TransportError)):
        async for _ in await client.chat.completions.create(model=LUNA, messages=messages, stream=True):
            pass
    (row,) = results(await completions(client))
    assert (row.num_model_requests, row.input_tokens) == (2, 2 * whole.prompt_tokens)
    assert whole.completion_tokens < row.output_tokens < whole.completion_tokens + 20


# --- Pages ---


@pytest.mark.parametrize(("width", "seconds", "usual"), [("1m", 60, 60), ("1h", 3_600, 24), ("1d", DAY, 7)])
async def test_buckets_come_in_pages_without_gap_or_overlap(
    client: AsyncOpenAI, clock: Clock, width: Any, seconds: int, usual: int
) -> None:
    number = 2 * usual + 3
    start = NOON // DAY * DAY
    for bucket in (0, 1, usual, number - 1):
        clock.now = start + bucket * seconds
        await ask(client)
    clock.now = start + number * seconds - 1
    pages = [await completions(client, start_time=start, bucket_width=width)]
    while pages[-1].has_more:
        pages.append(await completions(client, start_time=start, bucket_width=width, page=pages[-1].next_page))
    starts = [bucket.start_time for page in pages for bucket in page.data]
    assert starts == [start + at * seconds for at in range(number)]
    assert sum(row.num_model_requests for page in pages for row in results(page)) == 4
    assert (len(pages), pages[-1].next_page) == (3, None)


async def test_a_page_may_be_as_long_as_asked_for(client: AsyncOpenAI) -> None:
    page = await costs(client, start_time=NOON - 179 * DAY, limit=180)
    assert (len(page.data), page.has_more) == (180, False)


@pytest.mark.parametrize(
    ("call", "params", "param"),
    [
        (completions, {"limit": 32}, "limit"),
        (completions, {"limit": 0}, "limit"),
        (completions, {"bucket_width": "1m", "limit": 1_441}, "limit"),
        (completions, {"bucket_width": "1w"}, "bucket_width"),
        (completions, {"group_by": ["line_item"]}, "group_by[0]"),
        (completions, {"page": "page_?"}, "page"),
        (completions, {"end_time": NOON - DAY}, "end_time"),
        (completions, {"extra_query": {"start": 1}}, "start"),
        (costs, {"bucket_width": "1h"}, "bucket_width"),
        (costs, {"limit": 181}, "limit"),
        (costs, {"group_by": ["model"]}, "group_by[0]"),
    ],
)
async def test_what_there_is_not_is_refused(
    client: AsyncOpenAI, call: Callable[..., Any], params: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await call(client, **params)
    assert caught.value.param == param


async def test_lists_are_read_with_and_without_brackets(simulator: Simulator, client: AsyncOpenAI) -> None:
    await ask(client)
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {ADMIN}"}) as http:
        for name in ("group_by", "group_by[]"):
            url = f"{simulator.url}/organization/usage/completions?start_time={NOON}&{name}=model&{name}=batch"
            (row,) = (await http.get(url)).json()["data"][0]["results"]
            assert (row["model"], row["batch"]) == (LUNA, False)


# --- Keys ---


async def test_usage_needs_an_admin_key_which_asks_no_model(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match=r"Missing scopes: api\.usage\.read"):
        await completions(client.with_options(admin_api_key="sk-simulated"))
    with pytest.raises(openai.AuthenticationError, match=r"Missing scopes: model\.request"):
        await ask(client.with_options(api_key=ADMIN))


async def test_what_else_an_organization_has_is_not_simulated(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not simulated: GET /v1/organization/usage/images"):
        await client.admin.organization.usage.images(start_time=NOON)


# --- Costs ---


async def exact_costs(simulator: Simulator, query: str = "") -> dict[str | None, Decimal | None]:
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {ADMIN}"}) as http:
        body = (await http.get(f"{simulator.url}/organization/costs?start_time={NOON}{query}")).content
    page = msgspec.json.decode(body, type=CostPage)
    return {row.line_item: row.amount.value for bucket in page.data for row in bucket.results}


class Amount(msgspec.Struct):
    value: Decimal | None


class CostRow(msgspec.Struct):
    line_item: str | None
    amount: Amount


class CostBucket(msgspec.Struct):
    results: list[CostRow]


class CostPage(msgspec.Struct):
    data: list[CostBucket]


async def test_costs_are_what_the_tokens_cost_by_kind(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.script(*[Reply("Four words of answer.", reasoning_tokens=100)] * 3)
    for _ in range(2):
        await ask(client, text="A long story. " * 500, prompt_cache_options={"ttl": "12h"})
    await ask(client, SOL, service_tier="priority")
    lines = await exact_costs(simulator, "&group_by=line_item")
    assert list(lines) == [
        f"{LUNA}, cache write input 12h",
        f"{LUNA}, cached input",
        f"{LUNA}, input",
        f"{LUNA}, output",
        f"priority | {SOL}, input",
        f"priority | {SOL}, output",
    ]
    usage = simulator.statistics().usage
    luna = PRICES.cost_of_sum("openai", LUNA, "default", usage[LUNA], NOON * 10**9).usd
    sol = PRICES.cost_of_sum("openai", SOL, "priority", usage[SOL], NOON * 10**9).usd
    assert luna is not None
    assert sol is not None
    assert sum(value for name, value in lines.items() if value and name and LUNA in name) == luna
    assert await exact_costs(simulator) == {None: luna + sol}
    page = await costs(client, group_by=["line_item", "project_id"], line_items=[f"{LUNA}, output"])
    (row,) = results(page)
    assert (row.quantity, row.quantity_unit, row.project_id) == (usage[LUNA].output_tokens, "tokens", "proj_default")
    assert row.amount.currency == "usd"
    assert row.amount.value == pytest.approx(float(lines[f"{LUNA}, output"] or 0))


async def test_a_long_prompt_is_billed_as_one(simulator: Simulator, client: AsyncOpenAI) -> None:
    usage = (await ask(client, text="word " * 272_100, max_output_tokens=16)).usage
    await ask(client, max_output_tokens=16)
    names = list(await exact_costs(simulator, "&group_by=line_item"))
    assert [name for name in names if name and name.endswith("long context")] == [
        f"{LUNA}, cache write input, long context",
        f"{LUNA}, input, long context",
        f"{LUNA}, output, long context",
    ]
    assert usage.input_tokens > 272_000


async def test_what_has_no_price_has_no_amount(simulator: Simulator, client: AsyncOpenAI) -> None:
    await ask(client, service_tier="ultrafast")
    assert await exact_costs(simulator) == {None: None}
    (row,) = results(await costs(client))
    assert row.amount.value is None


async def test_prices_may_be_the_users_own(clock: Clock, tmp_path: Any) -> None:
    overlay = tmp_path / "prices.toml"
    rates = "{ input_mtok = 7, output_mtok = 0 }"
    overlay.write_text(f'[[prices]]\nprovider = "openai"\nmodel = "{LUNA}"\nrates = {rates}\n')
    async with Simulator(clock=clock, prices=PriceBook(overlay)) as url, connect(url) as client:
        used = (await ask(client)).usage.input_tokens
        simulator_costs = await _costs_at(url)
    assert simulator_costs == Decimal(7) * used / 1_000_000


async def _costs_at(url: str) -> Decimal | None:
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {ADMIN}"}) as http:
        body = (await http.get(f"{url}/organization/costs?start_time={NOON}")).content
    return msgspec.json.decode(body, type=CostPage).data[0].results[0].amount.value


# --- Differences on command ---


async def test_the_bill_may_have_another_tier_than_the_answer(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("billed_tier", tier="flex"))
    assert (await ask(client)).service_tier == "default"
    await ask(client)
    rows = results(await completions(client, group_by=["service_tier"]))
    assert [(row.service_tier, row.num_model_requests) for row in rows] == [("default", 1), ("flex", 1)]


async def test_the_bill_may_have_another_cache_lifetime_than_the_answer(
    simulator: Simulator, client: AsyncOpenAI
) -> None:
    simulator.inject(Fault("billed_12h"))
    usage = (await ask(client, text="A long story. " * 500)).usage
    (row,) = results(await completions(client))
    assert usage.input_tokens_details.cache_write_tokens > 0
    assert row.input_cache_write_12h_tokens == usage.input_tokens_details.cache_write_tokens
    assert simulator.statistics().total.cache_write_12h_tokens == 0


async def test_a_request_may_be_billed_that_this_client_did_not_make(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("billed_twice"))
    usage = (await ask(client)).usage
    (row,) = results(await completions(client))
    assert (row.num_model_requests, row.input_tokens) == (2, 2 * usage.input_tokens)
    assert simulator.statistics().total == Usage(usage.input_tokens, usage.output_tokens)


async def test_what_is_new_shows_after_the_delay(clock: Clock) -> None:
    simulator = Simulator(clock=clock, billing_delay=3_600)
    async with simulator as url, connect(url, admin_api_key=ADMIN) as client:
        await ask(client)
        clock.now += 3_599
        assert results(await completions(client)) == []
        assert results(await costs(client)) == []
        clock.now += 1
        assert [row.num_model_requests for row in results(await completions(client))] == [1]
        assert len(results(await costs(client))) == 1


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan")])
def test_a_delay_that_makes_no_sense_is_refused(delay: float) -> None:
    with pytest.raises(ValueError, match="billing_delay must be finite and cannot be negative"):
        Simulator(billing_delay=delay)
