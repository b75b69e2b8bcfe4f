"""The simulated API's HTTP: one request and its answer, and the thread that serves."""
