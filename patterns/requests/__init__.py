"""Requests: what every request to a model goes through, whatever the framework."""
