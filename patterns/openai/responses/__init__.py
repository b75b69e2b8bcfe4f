"""The Responses API: requests metered attempt by attempt, streams read, calls answered."""
