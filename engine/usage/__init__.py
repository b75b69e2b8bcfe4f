"""Usage: events folded into statistics."""
