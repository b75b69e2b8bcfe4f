"""Use of tokens: tools whose output fills prompts, patterns that send much for little, requests that failed.

Contents are not recorded. What a tool's output added is read off the growth of a run's prompts: the next prompt holds
what the last one held, the answer to it as far as that is sent back, and what the tools between the two said. So the
growth is the upper bound of what they added, and the growth less the whole answer the lower one, if nothing else was.
Where requests overlap, or tools of several names ran between two, nothing is read off.
"""

from collections.abc import Iterator

from runmeter.engine.events import FunctionCall, Provenance, TokenUsage
from runmeter.engine.formats import format_count, format_rough_dollars
from runmeter.engine.prices.cost_estimate import CostEstimate

from .advice import MIN_RUNS, Advice, percent, percents, tokens

MAX_CELLS = 1_000
"""Tools, and patterns with a model, that are told apart; further ones are left out."""
TOLD_SHARE = 0.1
"""Share of all input tokens below which nothing is said of a tool or a pattern."""


class Chain:
    """The requests of a run that follow one another, the tools between them, and what these left in the prompt."""

    __slots__ = ("in_prompt", "last", "tools")

    def __init__(self) -> None:
        self.last: TokenUsage | None = None
        self.tools: dict[str, int] = {}
        self.in_prompt: dict[str, tuple[int, int]] = {}
        """Lower and upper bound of the tokens of each tool's output."""

    def restart(self, last: TokenUsage | None) -> None:
        """Begin anew, because nothing is known of what the prompt holds."""
        self.last = last
        self.tools = {}
        self.in_prompt = {}


class _Tool:
    __slots__ = ("added_high", "added_low", "calls", "measured", "sent_high", "sent_low")

    def __init__(self) -> None:
        self.calls = self.measured = 0
        self.added_low = self.added_high = 0
        self.sent_low = self.sent_high = 0
        """Sums over all the prompts that its output was in."""


class _Prompts:
    __slots__ = ("input", "output", "requests")

    def __init__(self) -> None:
        self.requests = self.input = self.output = 0


class TokenAppetite:
    """Adds up the tokens that tools, patterns and failed requests take."""

    def __init__(self) -> None:
        self._tools: dict[str, _Tool] = {}
        self._prompts: dict[tuple[str, str], _Prompts] = {}
        self._input = 0
        self._requests = self._failed = self._retries = self._unknown = 0
        self._cost_of_failed = CostEstimate()
        self._cost_of_others = CostEstimate()
        self.left_out = 0
        """Requests and calls of names that there was no room for."""

    def function_called(self, chain: Chain, event: FunctionCall) -> None:
        """Count a tool that has run."""
        tool = self._tools.get(event.name)
        if tool is None:
            if len(self._tools) >= MAX_CELLS:
                self.left_out += 1
                chain.restart(None)
                return
            tool = self._tools[event.name] = _Tool()
        tool.calls += 1
        if chain.last is not None and event.start_ns < chain.last.time_ns:
            chain.restart(None)
        chain.tools[event.name] = chain.tools.get(event.name, 0) + 1

    def requested(self, pattern: str, chain: Chain, event: TokenUsage, cost: CostEstimate) -> None:
        """Count a request that has ended, at this cost."""
        self._requests += 1
        self._retries += event.attempt > 1
        self._unknown += event.usage is None
        if event.error_type is None:
            self._cost_of_others += cost
        else:
            self._failed += 1
            self._cost_of_failed += cost
        usage = event.usage
        if usage is None:  # no answer came, so the next prompt holds nothing of it
            return
        self._input += usage.input_tokens
        if event.operation == "embeddings":  # a prompt of its own, for one tool or another
            return
        self._count_prompt(pattern, event)
        if event.provenance is Provenance.REPORTED:
            self._follow(chain, event)
        else:
            chain.restart(None)

    def _count_prompt(self, pattern: str, event: TokenUsage) -> None:
        key = pattern, event.model
        if key not in self._prompts and len(self._prompts) >= MAX_CELLS:
            self.left_out += 1
            return
        prompts, usage = self._prompts.setdefault(key, _Prompts()), event.usage
        if event.provenance is Provenance.REPORTED and usage is not None:
            prompts.requests += 1
            prompts.input += usage.input_tokens
            prompts.output += usage.output_tokens

    def _follow(self, chain: Chain, event: TokenUsage) -> None:
        """Read off what the tools since the last request added, and count what earlier ones added once more."""
        last, usage = chain.last, event.usage
        if last is None or usage is None or last.usage is None:
            chain.restart(event)
            return
        growth = usage.input_tokens - last.usage.input_tokens
        if growth < 0 or last.model != event.model or event.start_ns < last.time_ns:
            chain.restart(None if event.start_ns < last.time_ns else event)
            return
        if len(chain.tools) == 1:
            ((name, calls),) = chain.tools.items()
            least = max(growth - last.usage.output_tokens, 0)
            low, high = chain.in_prompt.get(name, (0, 0))
            chain.in_prompt[name] = low + least, high + growth
            tool = self._tools[name]
            tool.measured += calls
            tool.added_low += least
            tool.added_high += growth
        for name, (low, high) in chain.in_prompt.items():
            self._tools[name].sent_low += low
            self._tools[name].sent_high += high
        chain.last, chain.tools = event, {}

    def advice(self) -> Iterator[Advice]:
        """Tell what takes a large share of the tokens, most tokens first."""
        for name, tool in sorted(self._tools.items(), key=lambda item: -item[1].sent_high):
            if tool.measured >= MIN_RUNS and tool.sent_low and tool.sent_low >= TOLD_SHARE * self._input:
                yield self._of_tool(name, tool)
        for (pattern, model), prompts in sorted(self._prompts.items(), key=lambda item: -item[1].input):
            if prompts.requests >= MIN_RUNS and prompts.input and prompts.input >= TOLD_SHARE * self._input:
                yield self._of_prompts(pattern, model, prompts)
        if self._requests >= MIN_RUNS and self._failed:
            yield self._of_failed()

    def _of_tool(self, name: str, tool: _Tool) -> Advice:
        low, high = tool.sent_low / self._input, min(tool.sent_high / self._input, 1.0)
        each = tokens(tool.added_low // tool.measured, -(-tool.added_high // tool.measured))
        return Advice(
            kind="tool_tokens",
            subject=name,
            text=f"What tool {name} returned made up {percents(low, high)} of all input tokens: about {each} tokens a "
            f"call, sent {tool.sent_high / tool.added_high:.1f} times on average, once in each prompt that still held "
            f"it. Read off the growth of prompts after {tool.measured:,} of its {format_count(tool.calls, 'call')}.",
            figures={
                "share_low": low,
                "share_high": high,
                "added_low": tool.added_low,
                "added_high": tool.added_high,
                "sent_low": tool.sent_low,
                "sent_high": tool.sent_high,
            },
            counts={"calls": tool.calls, "measured_calls": tool.measured},
        )

    def _of_prompts(self, pattern: str, model: str, prompts: _Prompts) -> Advice:
        share = prompts.input / self._input
        ratio = prompts.input / prompts.output if prompts.output else None
        each = (
            f"{prompts.input // prompts.requests:,} tokens in and {prompts.output // prompts.requests:,} out a request"
        )
        for_each = "" if ratio is None else f": {ratio:.3g} in for each one out"
        return Advice(
            kind="prompt_tokens",
            subject=f"{pattern} with {model}",
            text=f"Prompts of {pattern} to {model} took {percent(share)} of all input tokens, {each}{for_each} "
            f"({format_count(prompts.requests, 'request')}).",
            figures={
                "share": share,
                "input_tokens": prompts.input,
                "output_tokens": prompts.output,
                "input_per_output": ratio,
            },
            counts={"requests": prompts.requests},
        )

    def _of_failed(self) -> Advice:
        failed, others = self._cost_of_failed, self._cost_of_others
        low = _share(failed.low_units, others.high_units)
        high = None if failed.high_units is None else _share(failed.high_units, others.low_units)
        share = f"{percents(low, high)} of the bill" if high is not None else "an unknown share of the bill"
        cost = str(failed) if failed.usd is None else format_rough_dollars(float(failed.usd))
        unknown = f" The API reported no usage for {format_count(self._unknown, 'request')}." if self._unknown else ""
        return Advice(
            kind="failed_requests",
            subject="requests",
            text=f"{self._failed:,} of {format_count(self._requests, 'request')} to models failed, {self._retries:,} "
            f"were retries. What failed cost {cost}, {share}.{unknown}",
            figures={"usd_low": failed.low, "usd_high": failed.high, "share_low": low, "share_high": high},
            counts={
                "requests": self._requests,
                "failed": self._failed,
                "retries": self._retries,
                "unknown": self._unknown,
            },
        )


def _share(part: int, rest: int | None) -> float:
    """A part of the whole; 0 where the rest has no bound."""
    if rest is None or not part + rest:
        return 0.0
    return part / (part + rest)
