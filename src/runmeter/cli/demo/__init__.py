"""The demo: patterns at work on texts, runs that go wrong, and what the engine has to say about it."""
