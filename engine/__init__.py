"""The core: events, the bus they travel on, the engine that runs, and what is computed from them.

`engine` imports no other folder of the package, and no framework. tiktoken and genai-prices are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import lifecycle
from .budget import Budget, BudgetStatus
from .bus import Bus, BusStatistics
from .clock import Clock, IdSource, SystemClock
from .codec import JSON, MSGPACK, Codec
from .context_sizes import context_size
from .cost_estimate import CostEstimate
from .engine import Engine, EngineStatistics
from .errors import (
    BudgetExceeded,
    BusClosed,
    ConfigurationError,
    EngineNotRunning,
    RunAborted,
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
from .execution import Execution, RunInfo, Runtime, current_execution
from .histogram import Histogram, HistogramSnapshot
from .loop import is_own_failure
from .operations import AssistantCall, ModelCall, ModelRequest, RetrievalCall, ToolCall, error_message
from .pattern import Pattern, run_child
from .price_sources import ModelPrices
from .pricing import PriceBook, Unpriced
from .result import RunResult
from .stream import Delta, RunStream
from .subscription import SubscriberStatistics, Subscription
from .tokens import TokenCount, TokenCounter, Tokenizer
from .tracing import Telemetry, Tracing
from .usage import UsageAggregator
from .usage_row import UsageRow
from .usage_statistics import UsageCell, UsageStatistics

if TYPE_CHECKING:
    from .advice import Advice
    from .advisor import Advisor

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
    "RunInfo",
    "RunReported",
    "RunResult",
    "RunStream",
    "RunTimeout",
    "RunmeterError",
    "Runtime",
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
    "context_size",
    "current_execution",
    "error_message",
    "is_own_failure",
    "lifecycle",
    "run_child",
]

_ON_FIRST_USE = {"Advice": ".advice", "Advisor": ".advisor"}
"""What few processes need, with all that it imports."""


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_ON_FIRST_USE[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
