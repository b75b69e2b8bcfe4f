"""Endpoints of the simulated API: a request checked and answered."""
