"""The organization's usage and costs, as an admin key sees them: from the simulator's own accounts.

Sources of parameters and shapes: openai 3.54.0, `types/admin/organization/usage_*.py` (2026-11). Where requests to the
same model have two prices, their line items say so as the real ones are seen to: `priority | gpt-5.6-sol, output, long
context` (public integrations, 2026-09). The line items of cache writes are approximate.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Literal, TypeAlias

import msgspec

from runmeter.engine import PriceBook, Usage

from ..accounts import LONG_PROMPT, Charge, Group, Operation
from ..errors import convert
from ..objects.buckets import COST_LIMITS, USAGE_LIMITS, BucketParams, write_buckets
from ..service import Answer, Call, Service

Wire: TypeAlias = dict[str, Any]
_LISTS = ("group_by", "project_ids", "api_key_ids", "models", "user_ids", "line_items")


class _Params(BucketParams, frozen=True, kw_only=True):
    """The parameters that usage and costs share. There is one user, of whom nothing is known."""

    project_ids: Sequence[str] = ()
    api_key_ids: Sequence[str] = ()
    user_ids: Sequence[str] = ()

    def wants(self, group: Group) -> bool:
        """Tell whether requests of this group are asked for."""
        return (
            not self.user_ids
            and (not self.project_ids or group.project_id in self.project_ids)
            and (not self.api_key_ids or group.api_key_id in self.api_key_ids)
        )


class _EmbeddingsParams(_Params, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: Sequence[str] = ()
    group_by: Sequence[Literal["project_id", "user_id", "api_key_id", "model"]] = ()


class _CompletionsParams(_Params, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: Sequence[str] = ()
    batch: bool | None = None
    group_by: Sequence[
        Literal["project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "api_source"]
    ] = ()


class _CostsParams(_Params, frozen=True, kw_only=True, forbid_unknown_fields=True):
    line_items: Sequence[str] = ()
    group_by: Sequence[Literal["project_id", "user_id", "line_item", "api_key_id", "api_source"]] = ()


class _Line(msgspec.Struct, frozen=True):
    """An amount of a bill: some tokens of one kind, of one group of requests."""

    group: Group
    name: str
    quantity: int
    usd: Decimal | None
    """None where the tokens have no known price."""


def usage_of_completions(service: Service, call: Call) -> Answer:
    """Answer GET /organization/usage/completions with what Responses and Chat Completions used."""
    return _usage(service, _read(call, _CompletionsParams), "completions", _completions_result)


def usage_of_embeddings(service: Service, call: Call) -> Answer:
    """Answer GET /organization/usage/embeddings with what embeddings used."""
    return _usage(service, _read(call, _EmbeddingsParams), "embeddings", _embeddings_result)


def costs(service: Service, call: Call) -> Answer:
    """Answer GET /organization/costs with what is billed."""
    params = _read(call, _CostsParams)
    charges = [charge for charge in service.accounts.charges() if params.wants(charge.group)]
    lines = [line for charge in charges for line in _lines(charge, service.prices)]
    wanted = [line for line in lines if not params.line_items or line.name in params.line_items]

    def results(start: int, end: int) -> Sequence[Wire]:
        told = [line for line in wanted if start <= line.group.minute < end]
        parts = _grouped(told, lambda line: _labels(line.group, params.group_by, line_item=line.name))
        return [_costs_result(labels, part, "line_item" in params.group_by) for labels, part in parts]

    return write_buckets(params, COST_LIMITS, service.clock(), results)


def _usage(
    service: Service,
    params: _CompletionsParams | _EmbeddingsParams,
    operation: Operation,
    result: Callable[[Wire, Sequence[Charge]], Wire],
) -> bytes:
    batch = params.batch if isinstance(params, _CompletionsParams) else None
    wanted = [
        charge
        for charge in service.accounts.charges()
        if params.wants(charge.group)
        and charge.group.operation == operation
        and (not params.models or charge.group.model in params.models)
        and batch is not True  # nothing that is simulated is a batch
    ]

    def results(start: int, end: int) -> Sequence[Wire]:
        told = [charge for charge in wanted if start <= charge.group.minute < end]
        parts = _grouped(told, lambda charge: _labels(charge.group, params.group_by))
        return [result(labels, part) for labels, part in parts]

    return write_buckets(params, USAGE_LIMITS, service.clock(), results)


def _read(call: Call, shape: type[Any]) -> Any:
    """Read the URL's parameters.

    Raises:
        ApiError: 400: one that there is not, or of another kind.
    """
    given: Mapping[str, Any] = {
        name: list(values) if name in _LISTS else values[-1] for name, values in call.lists.items()
    }
    return convert(given, shape, "", strict=False)


def _grouped(items: Iterable[Any], labels: Callable[[Any], Wire]) -> Iterator[tuple[Wire, Sequence[Any]]]:
    """Put together what has the same labels, in the order of the labels."""
    groups: dict[tuple[str, ...], tuple[Wire, list[Any]]] = {}
    for item in items:
        found = labels(item)
        groups.setdefault(tuple(map(str, found.values())), (found, []))[1].append(item)
    for _, group in sorted(groups.items(), key=lambda each: each[0]):
        yield group


def _labels(group: Group, names: Sequence[str], line_item: str | None = None) -> Wire:
    """Write by what a result is grouped; all else is null."""
    values = {
        "project_id": group.project_id,
        "user_id": None,
        "api_key_id": group.api_key_id,
        "api_source": "unlabeled",
        "model": group.model,
        "batch": False,
        "service_tier": group.tier,
        "line_item": line_item,
    }
    return {name: value if name in names else None for name, value in values.items()}


def _completions_result(labels: Wire, charges: Sequence[Charge]) -> Wire:
    usage = sum((charge.usage for charge in charges), Usage())
    uncached = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    return {
        "object": "organization.usage.completions.result",
        "num_model_requests": sum(charge.requests for charge in charges),
        "input_tokens": usage.input_tokens,
        "input_uncached_tokens": uncached,
        "input_cached_tokens": usage.cache_read_tokens,
        "input_cache_write_tokens": usage.cache_write_tokens,
        "input_cache_write_30m_tokens": usage.cache_write_tokens - usage.cache_write_12h_tokens,
        "input_cache_write_12h_tokens": usage.cache_write_12h_tokens,
        "input_text_tokens": uncached,
        "input_cached_text_tokens": usage.cache_read_tokens,
        "input_audio_tokens": 0,
        "input_cached_audio_tokens": 0,
        "input_image_tokens": 0,
        "input_cached_image_tokens": 0,
        "output_tokens": usage.output_tokens,
        "output_text_tokens": usage.output_tokens,
        "output_audio_tokens": 0,
        "output_image_tokens": 0,
        **_without(labels, "line_item"),
    }


def _embeddings_result(labels: Wire, charges: Sequence[Charge]) -> Wire:
    return {
        "object": "organization.usage.embeddings.result",
        "num_model_requests": sum(charge.requests for charge in charges),
        "input_tokens": sum(charge.usage.input_tokens for charge in charges),
        **_without(labels, "line_item", "batch", "service_tier", "api_source"),
    }


def _costs_result(labels: Wire, lines: Sequence[_Line], by_line_item: bool) -> Wire:
    amounts = [line.usd for line in lines]
    known = [amount for amount in amounts if amount is not None]
    value = sum(known, Decimal(0)) if len(known) == len(amounts) else None
    return {
        "object": "organization.costs.result",
        "amount": {"value": value, "currency": "usd"},
        "quantity": sum(line.quantity for line in lines) if by_line_item else None,
        "quantity_unit": "tokens" if by_line_item else None,
        **_without(labels, "model", "batch", "service_tier"),
    }


def _without(labels: Wire, *names: str) -> Wire:
    return {name: value for name, value in labels.items() if name not in names}


def _lines(charge: Charge, prices: PriceBook) -> Iterator[_Line]:
    """Write the bill of a group of requests: a line for each kind of tokens."""
    group, usage = charge.group, charge.usage
    cost = partial(prices.cost_of_sum, "openai", group.model, group.tier, at_ns=group.minute * 10**9)
    tier = "" if group.tier == "default" else f"{group.tier} | "
    for kind, quantity, part in _parts(usage):
        usual = cost(part)
        own = cost(part, prompt_tokens=LONG_PROMPT + 1) if group.long else usual
        if quantity:
            name = f"{tier}{group.model}, {kind}{'' if own == usual else ', long context'}"
            yield _Line(group, name, quantity, own.usd)


def _parts(usage: Usage) -> Iterator[tuple[str, int, Usage]]:
    """Divide a usage into kinds that have a price each, with their number of tokens."""
    read, written_12h = usage.cache_read_tokens, usage.cache_write_12h_tokens
    written = usage.cache_write_tokens - written_12h
    plain = usage.input_tokens - read - usage.cache_write_tokens
    yield "input", plain, Usage(plain)
    yield "cached input", read, Usage(read, cache_read_tokens=read)
    yield "cache write input", written, Usage(written, cache_write_tokens=written)
    yield (
        "cache write input 12h",
        written_12h,
        Usage(written_12h, cache_write_tokens=written_12h, cache_write_12h_tokens=written_12h),
    )
    output = Usage(output_tokens=usage.output_tokens, reasoning_tokens=usage.reasoning_tokens)
    yield "output", usage.output_tokens, output
