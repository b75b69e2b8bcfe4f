"""The public names: what was importable stays importable, wherever its module goes."""

import importlib

import pytest

NAMES = {
    "runmeter": """
        __version__ meter unmeter
    """,
    "runmeter.engine": """
        Advice Advisor AssistantCall AssistantRun Budget BudgetExceeded BudgetStatus BudgetUnavailable Bus BusClosed
        BusStatistics Clock Codec ConfigurationError CostEstimate Delta Engine EngineNotRunning EngineStatistics Event
        Execution ExecutionFinished ExecutionStarted FunctionCall Histogram HistogramSnapshot IdSource JSON
        KnownEvent Ledger LedgerError LedgerFull LedgerReader LedgerStatistics MSGPACK ModelCall ModelCallStarted
        ModelPrices ModelRequest Notice Pattern PriceBook SQLiteLedger
        Provenance Retrieval RetrievalCall RunAborted RunEnded RunInfo RunReported RunResult RunStream
        RunTimeout RunmeterError Runtime Status StrayCancellation StreamClosed SubscriberStatistics Subscription
        SystemClock Telemetry TokenCount TokenCounter TokenUsage Tokenizer TokenizerError ToolCall Totals
        TraceContext Tracing UnboundedRequest UnknownEvent Unpriced Usage UsageAggregator UsageCell UsageRow
        UsageStatistics
        ambient_run await_foreign call_at_close carry context_size contradiction_in current_execution
        error_message forget_close hand_reservation hold_reservation install is_own_failure lifecycle
        metered_execution open_model_call outside_requests outside_run provider_standing_at retirements
        run_child stand_in stop_standing_in tags
    """,
    "runmeter.patterns": """
        Agent AssistantResult AsyncioRequired Attempt AugmentedLLMConfig AugmentedLLMPattern AugmentedResult
        BasePattern BranchResult ChainResult Chunking Citation Classification ContextTooLong
        ConversationLocked ConversationResult Document EmbeddingRetriever EvaluatorOptimizerConfig
        EvaluatorOptimizerPattern FunctionResult Gate GateError Handoff History HistoryStore
        InMemoryHistoryStore IngestionError ListenerGone MalformedAnswer MeteringHandler MissingFramework
        MultiAgentResult OpenAIAssistantConfig OpenAIAssistantPattern OpenAIBasePattern
        OpenAIConversationConfig OpenAIConversationPattern OpenAIFunctionCallingConfig
        OpenAIFunctionCallingPattern OpenAIMultiAgentConfig OpenAIMultiAgentPattern OpenAIPatternConfig
        OpenAIRAGConfig OpenAIRAGPattern OpenAIStreamingConfig OpenAIStreamingPattern OptimizedResult
        OrchestratedResult OrchestratorWorkersConfig OrchestratorWorkersPattern ParallelResult
        ParallelizationConfig ParallelizationPattern Passage PatternConfig PatternError PatternInstance
        PatternRegistry PatternResult PatternType Plan PromptChainingConfig PromptChainingPattern RAGResult
        ResponseFailed RetiredModel Retriever RetryPolicy Route RoutedResult RoutingConfig RoutingPattern
        Section Step StepResult StreamingResult Task TaskResult Tool ToolError UnknownConversation
        UnknownPattern VectorStoreRetriever Verdict get_pattern_registry
    """,
    "runmeter.telemetry": """
        ExporterStatistics OpenTelemetry TelemetryStatistics configure semconv
    """,
}
"""What each package has promised. Add new names; none is ever taken away. The facade has the engine's as well."""


@pytest.mark.parametrize("package", NAMES)
def test_no_public_name_is_lost(package: str) -> None:
    promised = set(NAMES[package].split())
    if package == "runmeter":
        promised |= set(NAMES["runmeter.engine"].split())
    module = importlib.import_module(package)
    assert promised <= set(module.__all__)
    for name in promised:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", NAMES)
def test_every_public_name_is_promised(package: str) -> None:
    promised = set(NAMES[package].split())
    if package == "runmeter":
        promised |= set(NAMES["runmeter.engine"].split())
    assert set(importlib.import_module(package).__all__) == promised
