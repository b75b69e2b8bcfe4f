"""An OpenAI-compatible service on loopback, deterministic: a stand-in for the paid one in demos, tests and
benchmarks.

    async with Simulator() as url:
        client = AsyncOpenAI(base_url=url, api_key="sk-simulated")

It answers the Responses, Conversations, Chat Completions, Embeddings, Files, Vector Stores and Models APIs, counts
tokens with the real vocabularies, reports prompt caching, calls tools, searches files, and misbehaves on command.
Running it needs the extra: `pip install 'runmeter[simulator]'`.
"""

from .faults import Fault
from .model.catalogue import Model
from .model.prompt import Item, Output, Prompt, PromptTool
from .model.replies import Reply, ScriptedCall
from .server import Simulator
from .statistics import SimulatorStatistics

__all__ = [
    "Fault",
    "Item",
    "Model",
    "Output",
    "Prompt",
    "PromptTool",
    "Reply",
    "ScriptedCall",
    "Simulator",
    "SimulatorStatistics",
]
