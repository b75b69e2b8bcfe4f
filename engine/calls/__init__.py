"""Calls inside a run: a request to a model, a tool's work, an assistant's work on a thread, a retrieval."""
