"""Concurrency: event loops as they are reached from outside, and tasks that are left behind rather than waited for."""
