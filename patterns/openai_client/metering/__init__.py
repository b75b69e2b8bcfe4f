"""Metering of a client that exists already: its requests are seen where they leave, in the HTTP client within it."""
