"""Runs: their handles, the one that code is in, and those of requests that belong to no other."""
