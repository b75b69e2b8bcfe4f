"""Patterns: what an engine runs. Configurations, results, tools, the registry, and the patterns themselves.

`patterns` imports `engine` only. The patterns' classes are looked up when they are used: neither openai nor langchain
is loaded before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import BasePattern, PatternResult
from .config import OpenAIPatternConfig, PatternConfig, PatternType
from .errors import (
    AsyncioRequired,
    ContextTooLong,
    ConversationLocked,
    GateError,
    IngestionError,
    ListenerGone,
    MalformedAnswer,
    MissingFramework,
    PatternError,
    ResponseFailed,
    RetiredModel,
    ToolError,
    UnknownConversation,
    UnknownPattern,
)
from .registry import PatternInstance, PatternRegistry, get_pattern_registry
from .requests.retry import RetryPolicy
from .retrieval.citations import Citation
from .retrieval.ingestion import Chunking, Document
from .retrieval.retriever import Passage, Retriever
from .tools.tool import Tool
from .tools.toolbox import FunctionResult

if TYPE_CHECKING:
    from .langgraph.augmented_llm import AugmentedLLMConfig, AugmentedLLMPattern, AugmentedResult
    from .langgraph.branches import BranchResult
    from .langgraph.evaluator_optimizer import (
        Attempt,
        EvaluatorOptimizerConfig,
        EvaluatorOptimizerPattern,
        OptimizedResult,
        Verdict,
    )
    from .langgraph.metering.handler import MeteringHandler
    from .langgraph.orchestrator_workers import (
        OrchestratedResult,
        OrchestratorWorkersConfig,
        OrchestratorWorkersPattern,
        Plan,
        Task,
        TaskResult,
    )
    from .langgraph.parallelization import ParallelizationConfig, ParallelizationPattern, ParallelResult, Section
    from .langgraph.prompt_chaining import ChainResult, PromptChainingConfig, PromptChainingPattern, StepResult
    from .langgraph.routing import Classification, Route, RoutedResult, RoutingConfig, RoutingPattern
    from .langgraph.steps import Gate, Step
    from .openai.agents import Agent, Handoff
    from .openai.assistant import AssistantResult, OpenAIAssistantConfig, OpenAIAssistantPattern
    from .openai.base import OpenAIBasePattern
    from .openai.conversation import ConversationResult, OpenAIConversationConfig, OpenAIConversationPattern
    from .openai.embeddings import EmbeddingRetriever
    from .openai.function_calling import OpenAIFunctionCallingConfig, OpenAIFunctionCallingPattern
    from .openai.multi_agent import MultiAgentResult, OpenAIMultiAgentConfig, OpenAIMultiAgentPattern
    from .openai.rag import OpenAIRAGConfig, OpenAIRAGPattern, RAGResult
    from .openai.streaming import OpenAIStreamingConfig, OpenAIStreamingPattern, StreamingResult
    from .openai.threads.history import History, HistoryStore, InMemoryHistoryStore
    from .openai.vector_store import VectorStoreRetriever

__all__ = [
    "Agent",
    "AssistantResult",
    "AsyncioRequired",
    "Attempt",
    "AugmentedLLMConfig",
    "AugmentedLLMPattern",
    "AugmentedResult",
    "BasePattern",
    "BranchResult",
    "ChainResult",
    "Chunking",
    "Citation",
    "Classification",
    "ContextTooLong",
    "ConversationLocked",
    "ConversationResult",
    "Document",
    "EmbeddingRetriever",
    "EvaluatorOptimizerConfig",
    "EvaluatorOptimizerPattern",
    "FunctionResult",
    "Gate",
    "GateError",
    "Handoff",
    "History",
    "HistoryStore",
    "InMemoryHistoryStore",
    "IngestionError",
    "ListenerGone",
    "MalformedAnswer",
    "MeteringHandler",
    "MissingFramework",
    "MultiAgentResult",
    "OpenAIAssistantConfig",
    "OpenAIAssistantPattern",
    "OpenAIBasePattern",
    "OpenAIConversationConfig",
    "OpenAIConversationPattern",
    "OpenAIFunctionCallingConfig",
    "OpenAIFunctionCallingPattern",
    "OpenAIMultiAgentConfig",
    "OpenAIMultiAgentPattern",
    "OpenAIPatternConfig",
    "OpenAIRAGConfig",
    "OpenAIRAGPattern",
    "OpenAIStreamingConfig",
    "OpenAIStreamingPattern",
    "OptimizedResult",
    "OrchestratedResult",
    "OrchestratorWorkersConfig",
    "OrchestratorWorkersPattern",
    "ParallelResult",
    "ParallelizationConfig",
    "ParallelizationPattern",
    "Passage",
    "PatternConfig",
    "PatternError",
    "PatternInstance",
    "PatternRegistry",
    "PatternResult",
    "PatternType",
    "Plan",
    "PromptChainingConfig",
    "PromptChainingPattern",
    "RAGResult",
    "ResponseFailed",
    "RetiredModel",
    "Retriever",
    "RetryPolicy",
    "Route",
    "RoutedResult",
    "RoutingConfig",
    "RoutingPattern",
    "Section",
    "Step",
    "StepResult",
    "StreamingResult",
    "Task",
    "TaskResult",
    "Tool",
    "ToolError",
    "UnknownConversation",
    "UnknownPattern",
    "VectorStoreRetriever",
    "Verdict",
    "get_pattern_registry",
]

_ON_FIRST_USE = {
    "Agent": ".openai.agents",
    "AssistantResult": ".openai.assistant",
    "Attempt": ".langgraph.evaluator_optimizer",
    "AugmentedLLMConfig": ".langgraph.augmented_llm",
    "AugmentedLLMPattern": ".langgraph.augmented_llm",
    "AugmentedResult": ".langgraph.augmented_llm",
    "BranchResult": ".langgraph.branches",
    "ChainResult": ".langgraph.prompt_chaining",
    "Classification": ".langgraph.routing",
    "ConversationResult": ".openai.conversation",
    "EmbeddingRetriever": ".openai.embeddings",
    "EvaluatorOptimizerConfig": ".langgraph.evaluator_optimizer",
    "EvaluatorOptimizerPattern": ".langgraph.evaluator_optimizer",
    "Gate": ".langgraph.steps",
    "Handoff": ".openai.agents",
    "History": ".openai.threads.history",
    "HistoryStore": ".openai.threads.history",
    "InMemoryHistoryStore": ".openai.threads.history",
    "MeteringHandler": ".langgraph.metering.handler",
    "MultiAgentResult": ".openai.multi_agent",
    "OpenAIAssistantConfig": ".openai.assistant",
    "OpenAIAssistantPattern": ".openai.assistant",
    "OpenAIBasePattern": ".openai.base",
    "OpenAIConversationConfig": ".openai.conversation",
    "OpenAIConversationPattern": ".openai.conversation",
    "OpenAIFunctionCallingConfig": ".openai.function_calling",
    "OpenAIFunctionCallingPattern": ".openai.function_calling",
    "OpenAIMultiAgentConfig": ".openai.multi_agent",
    "OpenAIMultiAgentPattern": ".openai.multi_agent",
    "OpenAIRAGConfig": ".openai.rag",
    "OpenAIRAGPattern": ".openai.rag",
    "OpenAIStreamingConfig": ".openai.streaming",
    "OpenAIStreamingPattern": ".openai.streaming",
    "OptimizedResult": ".langgraph.evaluator_optimizer",
    "OrchestratedResult": ".langgraph.orchestrator_workers",
    "OrchestratorWorkersConfig": ".langgraph.orchestrator_workers",
    "OrchestratorWorkersPattern": ".langgraph.orchestrator_workers",
    "ParallelResult": ".langgraph.parallelization",
    "ParallelizationConfig": ".langgraph.parallelization",
    "ParallelizationPattern": ".langgraph.parallelization",
    "Plan": ".langgraph.orchestrator_workers",
    "PromptChainingConfig": ".langgraph.prompt_chaining",
    "PromptChainingPattern": ".langgraph.prompt_chaining",
    "RAGResult": ".openai.rag",
    "Route": ".langgraph.routing",
    "RoutedResult": ".langgraph.routing",
    "RoutingConfig": ".langgraph.routing",
    "RoutingPattern": ".langgraph.routing",
    "Section": ".langgraph.parallelization",
    "Step": ".langgraph.steps",
    "StepResult": ".langgraph.prompt_chaining",
    "StreamingResult": ".openai.streaming",
    "Task": ".langgraph.orchestrator_workers",
    "TaskResult": ".langgraph.orchestrator_workers",
    "VectorStoreRetriever": ".openai.vector_store",
    "Verdict": ".langgraph.evaluator_optimizer",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_FIRST_USE[name], __name__), name)
