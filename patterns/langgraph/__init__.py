"""Patterns on LangGraph, and the callback handler that meters any LangChain graph."""
