"""Metering of LangChain: a callback handler that makes calls of models and tools events."""
