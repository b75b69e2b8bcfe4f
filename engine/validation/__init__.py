"""Validation: texts and numbers are checked, cleaned, cut and masked before they enter an event."""
