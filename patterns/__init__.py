"""Patterns: what an engine runs. Configurations, results, tools, the registry, and the patterns themselves.

`patterns` imports `engine` only. The patterns' classes are looked up when they are used: neither openai nor langchain
is loaded before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import BasePattern, OpenAIBasePattern, PatternResult
from .config import OpenAIPatternConfig, PatternConfig, PatternType
from .errors import (
    AsyncioRequired,
    MissingFramework,
    PatternError,
    ResponseFailed,
    ToolError,
    UnknownPattern,
)
from .registry import PatternInstance, PatternRegistry, get_pattern_registry
from .retry import RetryPolicy
from .tools import FunctionResult, Tool

if TYPE_CHECKING:
    from .langgraph.augmented_llm import AugmentedLLMPattern
    from .langgraph.callbacks import MeteringHandler
    from .openai.function_calling import OpenAIFunctionCallingPattern

__all__ = [
    "AsyncioRequired",
    "AugmentedLLMPattern",
    "BasePattern",
    "FunctionResult",
    "MeteringHandler",
    "MissingFramework",
    "OpenAIBasePattern",
    "OpenAIFunctionCallingPattern",
    "OpenAIPatternConfig",
    "PatternConfig",
    "PatternError",
    "PatternInstance",
    "PatternRegistry",
    "PatternResult",
    "PatternType",
    "ResponseFailed",
    "RetryPolicy",
    "Tool",
    "ToolError",
    "UnknownPattern",
    "get_pattern_registry",
]

_ON_FIRST_USE = {
    "AugmentedLLMPattern": ".langgraph.augmented_llm",
    "MeteringHandler": ".langgraph.callbacks",
    "OpenAIFunctionCallingPattern": ".openai.function_calling",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_FIRST_USE[name], __name__), name)
