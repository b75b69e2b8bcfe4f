"""The parts of a reconciliation: the ledger's side, the bill's side, what agrees, and the causes of what does not."""
