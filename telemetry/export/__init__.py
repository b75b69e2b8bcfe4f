"""Export: queues, threads and transports by which spans and metrics reach a collector."""
