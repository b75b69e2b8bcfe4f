"""The engine: runs patterns, and lets its subscribers know what they did."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from contextvars import Token
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import anyio.to_thread
import msgspec

from .ambient import ambient_tags
from .budgets.budget import Budget, BudgetStatus
from .budgets.budgets import Budgets
from .bus import Bus, BusStatistics
from .clock import Clock, IdSource, SystemClock, random_run_id
from .concurrency.background import Background
from .concurrency.cancellation import patient_scope
from .concurrency.loop import LoopThread, without_cancellations
from .concurrency.outside import enter_engine, leave_engine, outside
from .errors import ConfigurationError, EngineNotRunning, RunAborted, RunTimeout
from .events import Event
from .ledger.ledger import Ledger
from .ledger.recording import Recording, ledger_of
from .mapping import Progress, run_many
from .pattern import Context, Messages, Pattern, PatternFunction, Work, describe, do_work
from .prices.price_book import PriceBook
from .result import RunResult
from .runs.current import current_execution, watch_outside
from .runs.execution import Execution
from .runtime import RunInfo, Runtime
from .stream import Channel, RunStream
from .subscription import Lane, Receiver, Subscription, is_within_receiver
from .tracing import Telemetry
from .usage.aggregator import UsageAggregator
from .usage.statistics import UsageStatistics
from .validation.checks import check_kind, check_methods, check_number, check_seconds, check_tier
from .validation.error_messages import ErrorMessages, editing

logger = logging.getLogger("runmeter")

INTERRUPTED_GRACE = 0.8
"""Seconds for everything an engine still does when it is left by an exception, Ctrl-C for example."""
TELEMETRY_BATCH = 50
"""Events that telemetry is handed at once: it takes some 25 µs for each, and as many batches as a turn has time for."""
ABORT_GRACE = 1.0
"""Seconds that runs stopped at closing have to clean up."""
LEDGER_GRACE = 5.0
"""Seconds that the ledger has to write its last events, however short the engine's own limit is."""
STOP_LIMIT = 1.0
"""Seconds more that closing waits for the runs of streams: one that does not end by then is left behind."""


class EngineStatistics(msgspec.Struct, frozen=True):
    """The load of an engine, and its bus's accounting."""

    running: int
    """Runs in flight, child runs included."""
    bus: BusStatistics
    outside_requests: int = 0
    """Requests to models since it started that were made in this process and belong to no run: see `carry`."""


class Engine:
    """Runs patterns and meters every one of them. Use it as an async context manager, on asyncio or trio.

    Args:
        usage: Where statistics are kept; by default an aggregator of its own. One aggregator can serve several engines.
        prices: What tokens cost; by default the aggregator's price book. Not together with `usage`.
        telemetry: Where traces and metrics go, such as `runmeter.telemetry.configure()`.
        budgets: What runs may spend. A request that a budget has no room for is refused before it leaves.
        max_concurrent_runs: How many runs go on at once; further ones wait. Child runs are not counted.
        assume_tier: The service tier of requests that name none, such as `default` where that is the OpenAI project's
            own. Without it, a request whose usage is not reported may cost what the dearest tier costs, and budgets
            reserve as much.
        ledger: Where events are kept beyond this process: the path of a SQLite file, which is made if there is none, or
            a ledger, such as `SQLiteLedger("runs.db", commit="run")`, which says what it promises.
        drain_timeout: Seconds that closing waits for runs in flight, and again for lossless subscribers. With 0 runs
            are stopped at once, and what subscribers have not taken is lost to them.
        clock: Where times come from.
        new_run_id: Where run ids come from. They are trace ids, too: see `IdSource`.
        error_messages: The words of errors that events keep, and so logs, spans and reports: `masked` (those of the API
            and of Runmeter, without what looks like a secret; of errors in users' tools and functions the type alone),
            `full`, `off` (types alone), or a function of an error's type and message that returns what to keep or None.

    Raises:
        ConfigurationError: arguments that contradict each other or lie outside their range.
    """

    def __init__(
        self,
        *,
        usage: UsageAggregator | None = None,
        prices: PriceBook | None = None,
        telemetry: Telemetry | None = None,
        budgets: Sequence[Budget] = (),
        ledger: str | PathLike[str] | Ledger | None = None,
        max_concurrent_runs: int | None = None,
        assume_tier: str | None = None,
        drain_timeout: float = 30.0,
        clock: Clock | None = None,
        new_run_id: IdSource = random_run_id,
        error_messages: ErrorMessages = "masked",
    ) -> None:
        if usage is not None and prices is not None:
            raise ConfigurationError(
                "give the prices to the aggregator, UsageAggregator(prices), or to the engine; not both"
            )
        if max_concurrent_runs is not None:
            check_number("max_concurrent_runs", max_concurrent_runs, " or None")
        check_seconds("drain_timeout", drain_timeout, positive=False)
        _check_parts(usage, telemetry, clock, new_run_id)
        self._usage = UsageAggregator(prices) if usage is None else usage
        self._telemetry = telemetry
        self._limit = max_concurrent_runs
        self._drain_timeout = drain_timeout
        self._bus = Bus(late=self._publish_late)
        clock = SystemClock() if clock is None else clock
        assumed_tier = check_tier(assume_tier)
        kept = Budgets(budgets, self._usage.prices, clock, assumed_tier)
        self._budgets = kept if kept.limits else None
        if self._budgets is not None and self._budgets.leases is not None and ledger is None:
            raise ConfigurationError(
                "a shared budget is held in a ledger that its processes share: "
                'Engine(ledger="runs.db"), or a Budget without shared=True'
            )
        self._recording: Recording | None = None
        if (kept_in := ledger_of(ledger)) is not None:
            recorded = self._bus.subscribe(kept_in.put, name="ledger", lane="lossless")
            self._recording = Recording(kept_in, recorded.catch_up)
        self._runtime = Runtime(
            self,
            self._bus.publish,
            clock,
            new_run_id,
            telemetry,
            budgets=self._budgets,
            assumed_tier=assumed_tier,
            edit=editing(error_messages),
            recording=self._recording,
        )
        self._started = False
        self._outside_before = 0
        self._tasks = Background("runmeter engine")
        self._closing = False
        self._aborting = False
        self._running: set[anyio.CancelScope] = set()
        self._channels: set[Channel] = set()
        self._new_scope: type[anyio.CancelScope] = anyio.CancelScope
        self._slots: anyio.Semaphore | None = None
        """The turns of runs; None if runs are not limited."""
        self._quiet: anyio.Event
        self._loop: LoopThread
        self._entered: Token[object]

        self._folding = self._bus.subscribe(self._usage.fold, name="usage", lane="lossless")
        if telemetry is not None:
            self._bus.subscribe(
                telemetry.receive, name="telemetry", lane="lossy", capacity=100_000, batch=TELEMETRY_BATCH
            )

    # Running

    async def run(
        self,
        pattern: Pattern | PatternFunction,
        messages: Messages,
        context: Context = None,
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        conversation_id: str | None = None,
    ) -> RunResult[Any]:
        """Run a pattern, in the caller's task. Within another run it becomes that run's child.

        Args:
            pattern: An object with `async execute(messages, context)`, or an async function of these two.
            messages: What the pattern takes.
            context: Handed to the pattern as it is.
            tags: What to break statistics down by, such as `{"tenant": "acme"}`. A child run inherits its parent's.
            timeout: Seconds the run may take. Waiting for its turn does not count.
            conversation_id: The conversation the run belongs to, if there is one.

        Raises:
            EngineNotRunning: the engine has not started, has closed, or belongs to another thread's event loop.
            RunTimeout: the run took longer than its timeout.
            RunAborted: the engine closed before the run was done.
            StrayCancellation: the pattern awaited something that had been cancelled elsewhere.
            BudgetExceeded: a budget has no room for a request of the pattern's.
            ConfigurationError: the pattern is not a pattern, the timeout not positive, or a tag or the id
                not a string.
            Exception: whatever the pattern raises.
        """
        info, execute = describe(pattern, tags, conversation_id)
        return await self._run(info, partial(execute, messages, context), timeout)

    def stream(
        self,
        pattern: Pattern | PatternFunction,
        messages: Messages,
        context: Context = None,
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        conversation_id: str | None = None,
        buffer: int = 16,
    ) -> RunStream:
        """Run a pattern in a task of its own, and hand out its deltas and events as they come.

        Takes what `run` takes and raises what it raises.

        Args:
            buffer: Deltas that may wait to be taken before the pattern is made to wait.
        """
        check_number("buffer", buffer)
        if timeout is not None:
            check_seconds("timeout", timeout, positive=True)
        info, execute = describe(pattern, tags, conversation_id)
        work = partial(execute, messages, context)
        return RunStream(partial(self._start_stream, info=info, work=work, timeout=timeout), buffer)

    async def map(
        self,
        pattern: Pattern | PatternFunction,
        inputs: Iterable[Messages],
        context: Context = None,
        *,
        concurrency: int = 10,
        on_error: Literal["raise", "collect"] = "raise",
        progress: Progress | None = None,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> list[RunResult[Any] | Exception]:
        """Run a pattern on many inputs, a number of them at once.

        Args:
            inputs: Messages, one item a run; taken one by one as runs begin.
            concurrency: How many runs go on at once, at most.
            on_error: `raise` stops all at the first run that fails and raises its exception; `collect` puts the
                exception in the result's place and goes on.
            progress: Called after every run with how many are done and of how many.
            context, tags, timeout: As in `run`, for each run.

        Returns:
            One result for each input, in their order.
        """
        run = partial(self.run, pattern, context=context, tags=tags, timeout=timeout)
        return await run_many(run, inputs, concurrency, on_error, progress)

    async def _run(
        self, info: RunInfo, work: Work, timeout: float | None, channel: Channel | None = None
    ) -> RunResult[Any]:
        """Wait for the run's turn, then see it through. A run within a run has its turn already.

        So has one that a receiver makes: its subscriber waits for it, and it might wait for that subscriber.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, positive=True)
        parent = current_execution()
        if self._is_within(parent):
            return await self._attend(parent.child(info, _tapped(parent.runtime, channel)), work, timeout)
        self._check_open()
        if (tags := ambient_tags.get()) and not info.tags:
            info = msgspec.structs.replace(info, tags=tags)
        if self._recording is not None and not self._recording.ledger.is_ready and not is_within_receiver():
            await self._recording.admission()
            self._check_open()
        if (self._slots is None and not self._bus.is_crowded) or is_within_receiver():
            return await self._attend(Execution(_tapped(self._runtime, channel), info), work, timeout)
        async with self._slots or nullcontext():
            await self._bus.admission()
            self._check_open()
            return await self._attend(Execution(_tapped(self._runtime, channel), info), work, timeout)

    async def _attend(self, execution: Execution, work: Work, timeout: float | None) -> RunResult[Any]:
        """Do a run's work until it is done, out of time, or stopped."""
        # A child may run in another thread's event loop, and that on another library.
        scope = self._new_scope() if self._loop.is_current else anyio.CancelScope()
        if timeout is not None:
            scope.deadline = anyio.current_time() + timeout
        self._running.add(scope)
        durable: bool | None = None
        try:
            try:
                with execution:
                    with scope:
                        value = await do_work(execution.info.pattern, work)
                    if scope.cancelled_caught:
                        raise self._reason(execution, timeout)
            except Exception:
                await self._keep(execution)
                raise
            durable = await self._keep(execution)
        finally:
            self._running.remove(scope)
            if self._closing and not self._running:
                self._quiet.set()
        return RunResult(
            execution.run_id,
            value,
            execution.duration_ns,
            tuple(execution.requests),
            tuple(execution.child_requests),
            self._usage.prices,
            execution.trace_id,
            durable,
        )

    async def _keep(self, execution: Execution) -> bool | None:
        """Have a run's events on disk, where the ledger promises that; tell whether they are."""
        recording = self._recording
        if recording is None or not recording.keeps_runs or execution.parent is not None:
            return None
        durable = await recording.on_disk()
        if not durable:
            execution.notice("ledger", execution.info.pattern, recording.ledger.error or "the ledger has closed")
        return durable

    def _reason(self, execution: Execution, timeout: float | None) -> Exception:
        if timeout is None or self._aborting:
            return RunAborted(execution.info.pattern, execution.run_id)
        return RunTimeout(execution.info.pattern, execution.run_id, timeout)

    async def _start_stream(self, channel: Channel, *, info: RunInfo, work: Work, timeout: float | None) -> None:
        if not self._is_within(current_execution()):
            self._check_open()
        self._tasks.start_soon(self._feed, channel, info, work, timeout, name=f"stream of {info.pattern}")

    async def _feed(self, channel: Channel, info: RunInfo, work: Work, timeout: float | None) -> None:
        """Run in a task of its own, and tell the channel how it ended."""
        result: RunResult[Any] | None = None
        error: BaseException | None = None
        self._channels.add(channel)
        try:
            with channel.scope:
                result = await self._run(info, work, timeout, channel)
        except BaseException as raised:
            error = without_cancellations(raised)
            if error is None:
                raise
        finally:
            self._channels.remove(channel)
            if not (result or error or channel.scope.cancel_called):
                error = RunAborted(info.pattern, "")
            channel.end(result, error)

    # Looking

    def subscribe(self, receive: Receiver, *, name: str, lane: Lane = "lossy", capacity: int = 10_000) -> Subscription:
        """Have every event of every run handed to a function, in batches; see `Bus.subscribe`."""
        return self._bus.subscribe(receive, name=name, lane=lane, capacity=capacity)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Hand no more events to this subscriber."""
        self._bus.unsubscribe(subscription)

    def usage(self, *, fleet: bool = False) -> UsageStatistics:
        """Compute the statistics so far. Every run that has returned is in them.

        Args:
            fleet: Sum over all processes that write the engine's ledger, as far as they have committed their events,
                and over all time that it keeps. It reads the file: call it in a thread where an event loop must go on.

        Raises:
            ConfigurationError: there is no ledger to sum over.
            LedgerError: it cannot be read.
        """
        if not fleet:
            return self._usage.snapshot()
        if self._recording is None or not self._started:
            raise ConfigurationError('usage(fleet=True) sums over a ledger: Engine(ledger="runs.db"), while it runs')
        self._recording.on_disk_now()
        return self._recording.ledger.usage()

    def budgets(self) -> tuple[BudgetStatus, ...]:
        """Read the budgets' caps: the amounts spent, reserved and refused, and the ends of their windows."""
        return () if self._budgets is None else self._budgets.status()

    def statistics(self) -> EngineStatistics:
        """Count the runs in flight, and read the bus's accounting."""
        heard = outside.requests - self._outside_before if self._started else 0
        return EngineStatistics(len(self._running), self._bus.statistics(), heard)

    # Life

    async def __aenter__(self) -> Self:
        if self._started:
            raise EngineNotRunning("it has closed" if self._closing else "it is running already")
        if not self._usage.prices.loaded:
            await anyio.to_thread.run_sync(self._usage.prices.load)
        self._slots = anyio.Semaphore(self._limit, fast_acquire=True) if self._limit else None
        self._quiet = anyio.Event()
        self._new_scope = patient_scope()
        self._loop = LoopThread()
        try:
            if self._recording is not None:
                await self._recording.open(self._usage.prices, self._runtime.clock, self._budgets)
            await self._bus.__aenter__()
            await self._tasks.start()
        except BaseException:
            if self._recording is not None:
                await self._recording.close(LEDGER_GRACE)
            raise
        self._usage.follow(self._folding.catch_up)
        self._started = True
        self._outside_before = outside.requests
        watch_outside(self._runtime)
        self._entered = enter_engine(self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closing = True
        if self._recording is not None:
            self._recording.stop_holding()
        in_order = False
        try:
            if exc is None and self._running:
                logger.debug("closing waits for %d runs, at most %g s", len(self._running), self._drain_timeout)
                with anyio.move_on_after(self._drain_timeout):
                    await self._quiet.wait()
            in_order = exc is None
        finally:
            outside.close(self._runtime)
            leave_engine(self._entered)
            step = self._drain_timeout if in_order else INTERRUPTED_GRACE / 3
            try:
                await self._stop(step)
            finally:
                await self._end_tasks(max(step, LEDGER_GRACE))

    async def _stop(self, step: float) -> None:
        """Stop the runs that go on, then have the subscribers take all events: each in at most `step` seconds."""
        self._aborting = True
        if self._running:
            logger.debug("closing cancels %d runs", len(self._running))
        for scope in self._running:
            scope.cancel()
        for channel in self._channels:
            channel.close()
        with anyio.move_on_after(min(step, ABORT_GRACE), shield=True):
            if self._running:
                await self._quiet.wait()
        await self._bus.drain(step)
        if self._telemetry is not None:
            with anyio.move_on_after(step, shield=True):
                try:
                    await self._telemetry.flush(step)
                except Exception:
                    logger.exception("telemetry could not be flushed")

    async def _end_tasks(self, ledger_limit: float) -> None:
        try:
            await self._tasks.close(STOP_LIMIT)
        finally:
            try:
                await self._bus.__aexit__(None, None, None)
            finally:
                self._folding.catch_up()
                self._usage.unfollow(self._folding.catch_up)
                if self._recording is not None:
                    await self._recording.close(ledger_limit)

    def _is_within(self, execution: Execution) -> bool:
        """Tell whether a run is one of ours and goes on. A task that has outlived its run begins anew."""
        return execution.runtime.owner is self and not execution.finished

    def _publish_late(self, event: Event) -> None:
        """Count the late events of a run that would not stop in time. Of the subscribers, the ledger alone hears of
        them, until it has closed."""
        self._usage.fold((event,))
        if self._recording is not None:
            self._recording.take_late(event)

    def _check_open(self) -> None:
        if self._closing:
            raise EngineNotRunning("it has closed")
        if not self._started:
            raise EngineNotRunning("it has not started")
        if not self._loop.is_current:
            raise EngineNotRunning("it belongs to an event loop in another thread")


def _check_parts(usage: object, telemetry: object, clock: object, new_run_id: object) -> None:
    if usage is not None:
        check_kind("usage", usage, UsageAggregator, "a UsageAggregator, such as a registry's `usage`")
    if telemetry is not None:
        needed = "start_span", "end_span", "receive", "flush"
        check_methods("telemetry", telemetry, needed, "what `runmeter.telemetry.configure()` returns")
    if clock is not None:
        check_methods("clock", clock, ("time_ns", "monotonic_ns"), "a clock, such as `SystemClock()`")
    if not callable(new_run_id):
        check_methods("new_run_id", new_run_id, ("__call__",), "a function that makes an id")


def _tapped(runtime: Runtime, channel: Channel | None) -> Runtime:
    """Make a runtime whose events also go into the channel, and whose deltas go there alone."""
    if channel is None:
        return runtime

    def publish(event: Event) -> None:
        runtime.publish(event)
        channel.put(event)

    return msgspec.structs.replace(runtime, publish=publish, delta=channel.put_delta)
