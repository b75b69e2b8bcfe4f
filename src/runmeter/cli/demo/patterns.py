"""The demo's patterns: all twelve, set up to answer questions about some documents."""

from collections.abc import Mapping
from typing import Any

from runmeter.patterns import BasePattern, PatternRegistry, PatternType

from .documents import Documents

INSTRUCTIONS = "You help people read documents. Look things up with the tools you have. Answer in a sentence or two."
CONTEXT_TOKENS = 8_000
"""Of the conversation, which goes on through all its runs: enough for a few turns, then the oldest are dropped."""


def make_patterns(registry: PatternRegistry, documents: Documents, model: str, url: str | None) -> list[BasePattern]:
    """Make one pattern of each type.

    Args:
        registry: Makes them.
        documents: What they are asked about. All can look into them with tools.
        model: The OpenAI model to ask.
        url: A simulated API's; None for the real one.
    """
    return [make_pattern(registry, kind, documents, model, url) for kind in _settings(documents)]


def make_pattern(
    registry: PatternRegistry, kind: PatternType, documents: Documents, model: str, url: str | None, **more: Any
) -> BasePattern:
    """A pattern of one type.

    Args:
        registry: Makes it.
        kind: The type.
        documents: What it is asked about.
        model: The OpenAI model to ask.
        url: A simulated API's; None for the real one.
        more: Further settings.
    """
    common = {
        "openai_model": model,
        "system_prompt": f"{INSTRUCTIONS}\n\nThis is how the documents begin:\n\n{documents.overview()}",
        "base_url": url,
        "api_key": "simulated" if url else None,
    }
    settings = {**common, **_settings(documents)[kind], **more}
    config = registry.pattern_class(kind).config_type.from_data(settings)
    return registry.create_pattern(kind, config, [documents.find_passages, documents.count_words])


def _settings(documents: Documents) -> Mapping[PatternType, Mapping[str, Any]]:
    """The settings of each pattern, beyond those of all."""
    return {
        PatternType.AUGMENTED_LLM: {},
        PatternType.PROMPT_CHAINING: {
            "steps": (
                {"name": "facts", "prompt": "List the facts in this that matter:\n\n{input}"},
                {"name": "answer", "prompt": "{input}\n\nAnswer from these facts:\n\n{facts}"},
            ),
        },
        PatternType.ROUTING: {
            "routes": (
                {"name": "summary", "description": "What a text says, in short."},
                {"name": "advice", "description": "What a reader should do."},
            ),
        },
        PatternType.PARALLELIZATION: {"mode": "voting", "choices": ("remember", "look up", "skip")},
        PatternType.ORCHESTRATOR_WORKERS: {"max_workers": 3},
        PatternType.EVALUATOR_OPTIMIZER: {"max_attempts": 2},
        PatternType.OPENAI_ASSISTANT: {"assistant_id": "librarian"},
        PatternType.OPENAI_FUNCTION_CALLING: {},
        PatternType.OPENAI_CONVERSATION: {"max_context_tokens": CONTEXT_TOKENS},
        PatternType.OPENAI_STREAMING: {},
        PatternType.OPENAI_MULTI_AGENT: {},
        PatternType.OPENAI_RAG: {"sources": tuple(map(str, documents.paths))},
    }
