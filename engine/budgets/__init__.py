"""Budgets: what runs may spend, and what is reserved for requests under way."""
