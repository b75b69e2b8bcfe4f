"""Threads: conversations that OpenAI keeps, their histories and how much of them is sent."""
