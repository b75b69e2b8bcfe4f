"""Reports: what a ledger's events come to, for people. They only read."""
