"""Retrieval: passages to answer from, and citations that point into them."""
