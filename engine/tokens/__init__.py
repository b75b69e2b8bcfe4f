"""Tokens: counted here where the API reports nothing, or has not yet."""
