"""Forked processes: what must not be shared with the parent is made anew."""

import os
import weakref
from collections.abc import Callable


def call_in_forked_child(method: Callable[[], None]) -> None:
    """Call a method in every child that this process forks, as long as its object lives."""
    if not hasattr(os, "register_at_fork"):  # Windows has no fork
        return
    reference = weakref.WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=call)
