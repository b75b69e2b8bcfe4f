"""Bodies of requests to models: which parameters there are, which values they take, and what is not simulated."""
