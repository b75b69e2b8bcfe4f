"""The core: events, the bus they travel on, the engine that runs, and what is computed from them.

`engine` imports no other folder of the package, and no framework. tiktoken and genai-prices are imported on first use.
"""

from importlib import import_module
from typing import Any

from .ambient import tags
from .budgets.budget import Budget, BudgetStatus
from .budgets.reserving import hand_reservation, hold_reservation
from .bus import Bus, BusStatistics
from .calls.endings import error_message
from .calls.model_call import ModelCall, open_model_call
from .calls.work import AssistantCall, RetrievalCall, ToolCall
from .clock import Clock, IdSource, SystemClock
from .codec import JSON, MSGPACK, Codec
from .concurrency.cancellation import await_foreign
from .concurrency.carrying import carry
from .concurrency.loop import is_own_failure
from .concurrency.outside import call_at_close, forget_close, install, outside_requests
from .engine import Engine, EngineStatistics
from .errors import (
    BudgetExceeded,
    BudgetUnavailable,
    BusClosed,
    ConfigurationError,
    EngineNotRunning,
    LedgerError,
    LedgerFull,
    RunAborted,
    RunEnded,
    RunmeterError,
    RunTimeout,
    StrayCancellation,
    StreamClosed,
    TokenizerError,
    UnboundedRequest,
)
from .events import (
    AssistantRun,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    KnownEvent,
    ModelCallStarted,
    Notice,
    Provenance,
    Retrieval,
    RunReported,
    Status,
    TokenUsage,
    TraceContext,
    UnknownEvent,
    Usage,
)
from .ledger.ledger import Ledger, LedgerStatistics
from .models import retirements
from .pattern import Pattern, run_child
from .prices.context_sizes import context_size
from .prices.cost_estimate import CostEstimate
from .prices.price_book import PriceBook, Unpriced
from .prices.readings import contradiction_in
from .prices.sources import ModelPrices
from .prices.stand_ins import provider_standing_at, stand_in, stop_standing_in
from .request import ModelRequest
from .result import RunResult
from .runs.current import ambient_run, current_execution, metered_execution
from .runs.execution import Execution
from .runs.outside_run import outside_run
from .runtime import RunInfo, Runtime
from .stream import Delta, RunStream
from .subscription import SubscriberStatistics, Subscription
from .tokens.tokenizer import TokenCount, TokenCounter, Tokenizer
from .tracing import Telemetry, Tracing
from .usage.aggregator import UsageAggregator
from .usage.histogram import Histogram, HistogramSnapshot
from .usage.row import UsageRow
from .usage.statistics import UsageCell, UsageStatistics
from .usage.totals import Totals

lifecycle = retirements
"""The name that `retirements` had before."""

__all__ = [
    "JSON",
    "MSGPACK",
    "Advice",
    "Advisor",
    "AssistantCall",
    "AssistantRun",
    "Budget",
    "BudgetExceeded",
    "BudgetStatus",
    "BudgetUnavailable",
    "Bus",
    "BusClosed",
    "BusStatistics",
    "Clock",
    "Codec",
    "ConfigurationError",
    "CostEstimate",
    "Delta",
    "Engine",
    "EngineNotRunning",
    "EngineStatistics",
    "Event",
    "Execution",
    "ExecutionFinished",
    "ExecutionStarted",
    "FunctionCall",
    "Histogram",
    "HistogramSnapshot",
    "IdSource",
    "KnownEvent",
    "Ledger",
    "LedgerError",
    "LedgerFull",
    "LedgerReader",
    "LedgerStatistics",
    "ModelCall",
    "ModelCallStarted",
    "ModelPrices",
    "ModelRequest",
    "Notice",
    "Pattern",
    "PriceBook",
    "Provenance",
    "Retrieval",
    "RetrievalCall",
    "RunAborted",
    "RunEnded",
    "RunInfo",
    "RunReported",
    "RunResult",
    "RunStream",
    "RunTimeout",
    "RunmeterError",
    "Runtime",
    "SQLiteLedger",
    "Status",
    "StrayCancellation",
    "StreamClosed",
    "SubscriberStatistics",
    "Subscription",
    "SystemClock",
    "Telemetry",
    "TokenCount",
    "TokenCounter",
    "TokenUsage",
    "Tokenizer",
    "TokenizerError",
    "ToolCall",
    "Totals",
    "TraceContext",
    "Tracing",
    "UnboundedRequest",
    "UnknownEvent",
    "Unpriced",
    "Usage",
    "UsageAggregator",
    "UsageCell",
    "UsageRow",
    "UsageStatistics",
    "ambient_run",
    "await_foreign",
    "call_at_close",
    "carry",
    "context_size",
    "contradiction_in",
    "current_execution",
    "error_message",
    "forget_close",
    "hand_reservation",
    "hold_reservation",
    "install",
    "is_own_failure",
    "lifecycle",
    "metered_execution",
    "open_model_call",
    "outside_requests",
    "outside_run",
    "provider_standing_at",
    "retirements",
    "run_child",
    "stand_in",
    "stop_standing_in",
    "tags",
]

_ON_FIRST_USE = {
    "Advice": "..advice",  # the engine's before; nothing here depends on it
    "Advisor": "..advice",
    "LedgerReader": ".ledger.reader",  # these load sqlite3
    "SQLiteLedger": ".ledger.sqlite",
}
"""Names that are imported when they are first used, with their modules."""


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_ON_FIRST_USE[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
