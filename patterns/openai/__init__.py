"""Patterns on the OpenAI API, over its own client."""
