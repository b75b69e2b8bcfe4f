"""Advice from an application's own history: what did the same work cheaper or faster. It only reads events."""

from .advice import Advice
from .advisor import Advisor

__all__ = ["Advice", "Advisor"]
