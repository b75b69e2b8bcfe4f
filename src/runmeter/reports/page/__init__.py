"""The report: a ledger as one page, that needs nothing but a browser."""
