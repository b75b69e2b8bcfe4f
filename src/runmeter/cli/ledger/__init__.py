"""The commands that read a ledger, or fill one from event logs."""
