"""Prices: what a request costs, exactly or between two bounds."""
