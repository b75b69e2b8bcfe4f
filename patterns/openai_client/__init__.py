"""The OpenAI client, as the patterns of both frameworks use it."""
