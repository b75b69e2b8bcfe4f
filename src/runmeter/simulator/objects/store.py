"""Where objects are kept: the newest of a kind, by id."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Store(Generic[T]):
    """A store of the newest objects of a kind, by id."""

    def __init__(self, capacity: int) -> None:
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._capacity = capacity

    def put(self, each_id: str, each: T) -> None:
        """Keep an object, or replace it."""
        self._kept[each_id] = each
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def get(self, each_id: str) -> T | None:
        """Find the object of this id, unless it was never kept, deleted, or forgotten."""
        return self._kept.get(each_id)

    def delete(self, each_id: str) -> bool:
        """Delete an object, and tell whether there was one."""
        return self._kept.pop(each_id, None) is not None

    def values(self) -> Iterable[T]:
        """The objects that are kept, the oldest first."""
        return self._kept.values()
