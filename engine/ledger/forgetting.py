"""Forgetting: the value of a tag, such as a customer's name, is replaced in all of a ledger; its sums stay as they are.

It is replaced as a tag of runs, events, statistics and budgets, and as a word in texts of the runs that have it and of
those around and within them: messages of errors and notices, and ids of conversations. SQLite overwrites what it
deletes (`secure_delete`), and the write-ahead log is emptied at the end; so the bytes are gone.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..clock import SystemClock
from ..errors import ConfigurationError, LedgerError
from .days import EPOCH, add_usage, encode, read_days
from .ledger_file import LedgerFile, encode_tags
from .schema import CHUNK, marks, open_for_reading

FORGOTTEN = "forgotten"
"""Stands in the place of a value that was forgotten."""
PIECE = 50
"""Runs that one transaction changes."""

_TAGGED = "EXISTS (SELECT 1 FROM json_each({}) WHERE key = ? AND value = ?)"
_TEXTS = ("error_message", "message", "subject", "conversation_id")
"""The fields of events that may hold words."""

Progress = Callable[[int, int], object]
"""Called with the number of runs that are done, and that of all."""


class Forgotten(msgspec.Struct):
    """The account of what was replaced, or would be."""

    runs: int = 0
    """Runs with the tag."""
    events: int = 0
    """Events that held the value."""
    day_rows: int = 0
    """Statistics of a day with the tag."""
    budgets: int = 0
    """Budgets and their accounts that were of this value."""
    log_is_empty: bool = True
    """Whether no copy of the value is left in the write-ahead log. Another that reads the ledger can keep it there."""


def count_tagged(path: str | PathLike[str], name: str, value: str) -> Forgotten:
    """Count what `forget_tag` would replace; nothing is changed.

    Raises:
        LedgerError: there is no ledger, or it cannot be read.
    """
    connection = open_for_reading(Path(path))
    try:
        found = Forgotten()
        found.runs = connection.execute(
            f"SELECT count(*) FROM runs WHERE {_TAGGED.format('tags')}",  # noqa: S608 - fixed names
            (name, value),
        ).fetchone()[0]
        found.day_rows = connection.execute(
            f"SELECT count(*) FROM days WHERE {_TAGGED.format('tags')}",  # noqa: S608 - fixed names
            (name, value),
        ).fetchone()[0]
        for runs in _trees(connection, name, value):
            events = _events_of(connection, runs)
            found.events += sum(_without(data, name, value) is not None for _, data in events)
        found.budgets = len(list(_budget_texts(connection, name, value)))
        return found
    finally:
        connection.close()


def forget_tag(path: str | PathLike[str], name: str, value: str, progress: Progress | None = None) -> Forgotten:
    """Replace the value of a tag in all of a ledger. Runs that begin later may bring it back.

    Broken off, it has replaced some: begin it anew.

    Args:
        path: The ledger.
        name: The tag's name.
        value: The value.
        progress: Told how far it is.

    Raises:
        LedgerError: there is no ledger, or it cannot be written.
        ConfigurationError: the value is empty, or the word that takes the place of one.
    """
    if not value or value == FORGOTTEN:
        raise ConfigurationError(f"the value to forget is a text other than {FORGOTTEN!r}, not {value!r}")
    if not Path(path).is_file():
        raise LedgerError(f"there is no ledger at {path}")
    total = count_tagged(path, name, value).runs
    store = LedgerFile(Path(path), SystemClock())
    try:
        done = Forgotten()
        for runs in _trees(store.connection, name, value):
            with store.transaction() as connection:
                done.runs += _forget_runs(connection, runs, name, value, done)
            if progress is not None:
                progress(done.runs, total)
            store.checkpoint()
        with store.transaction() as connection:
            done.day_rows = _forget_days(connection, name, value)
            done.budgets = _forget_in_budgets(connection, name, value)
        try:
            done.log_is_empty = store.empty_log()
        except OSError:  # another process commits and commits
            done.log_is_empty = False
        return done
    finally:
        store.close()


def _trees(connection: sqlite3.Connection, name: str, value: str) -> Iterator[dict[int, str]]:
    """Find runs with the tag, some at a time, with those around and within them: their numbers and tags."""
    after, seen = 0, set[str]()
    while True:
        roots = connection.execute(
            "SELECT id, coalesce(root_run_id, run_id) FROM runs"  # noqa: S608 - fixed names
            f" WHERE id > ? AND {_TAGGED.format('tags')} ORDER BY id LIMIT ?",
            (after, name, value, PIECE),
        ).fetchall()
        if not roots:
            return
        after = roots[-1][0]
        ids = sorted({root for _, root in roots} - seen)
        seen.update(ids)
        yield dict(
            connection.execute(
                f"SELECT id, tags FROM runs WHERE root_run_id IN ({marks(ids)}) OR run_id IN ({marks(ids)})",  # noqa: S608
                (*ids, *ids),
            ).fetchall()
        )


def _events_of(connection: sqlite3.Connection, runs: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    numbers = sorted(runs)
    for start in range(0, len(numbers), CHUNK):
        some = numbers[start : start + CHUNK]
        yield from connection.execute(
            f"SELECT id, data FROM events WHERE run IN ({marks(some)})",  # noqa: S608 - question marks alone
            some,
        ).fetchall()


def _forget_runs(
    connection: sqlite3.Connection, runs: Mapping[int, str], name: str, value: str, done: Forgotten
) -> int:
    for number, data in _events_of(connection, runs):
        if (changed := _without(data, name, value)) is not None:
            connection.execute("UPDATE events SET data = ? WHERE id = ?", (changed, number))
            done.events += 1
    tagged = 0
    for number, text in runs.items():
        tags = msgspec.json.decode(text)
        if tags.get(name) == value:
            tagged += 1
            tags[name] = FORGOTTEN
            connection.execute("UPDATE runs SET tags = ? WHERE id = ?", (encode_tags(tags).decode(), number))
    numbers, word = sorted(runs), _word(value)
    for start in range(0, len(numbers), CHUNK):
        some = numbers[start : start + CHUNK]
        rows = connection.execute(
            f"SELECT id, conversation_id FROM runs WHERE id IN ({marks(some)}) AND conversation_id IS NOT NULL",  # noqa: S608
            some,
        ).fetchall()
        changes = [(word.sub(FORGOTTEN, text), number) for number, text in rows if word.search(text)]
        connection.executemany("UPDATE runs SET conversation_id = ? WHERE id = ?", changes)
    return tagged


def _without(data: str, name: str, value: str) -> str | None:
    """Write an event without the value. None: it has it nowhere."""
    event: dict[str, Any] = msgspec.json.decode(data)
    changed, word = False, _word(value)
    tags = event.get("tags")
    if isinstance(tags, dict) and tags.get(name) == value:
        tags[name] = FORGOTTEN
        changed = True
    for field in _TEXTS:
        text = event.get(field)
        if isinstance(text, str) and word.search(text):
            event[field] = word.sub(FORGOTTEN, text)
            changed = True
    return msgspec.json.encode(event).decode() if changed else None


def _word(value: str) -> re.Pattern[str]:
    """Make the pattern of a value where neither a letter nor a digit goes on: `a` is not forgotten in `banana`."""
    return re.compile(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])")


def _forget_days(connection: sqlite3.Connection, name: str, value: str) -> int:
    """Add the statistics with the tag to those in which the value is forgotten."""
    days = connection.execute(
        f"SELECT DISTINCT day FROM days WHERE {_TAGGED.format('tags')}",  # noqa: S608 - fixed names
        (name, value),
    ).fetchall()
    count = 0
    for (day,) in days:
        tagged = [each for each in read_days(connection, day, day + 1) if (name, value) in each.cell.tags]
        for each in tagged:
            cell = each.cell
            tags = dict(cell.tags)
            key = ((each.day - EPOCH).days, cell.pattern, cell.framework, cell.model or "", encode_tags(tags).decode())
            connection.execute(
                "DELETE FROM days WHERE day = ? AND pattern = ? AND framework = ? AND model = ? AND tags = ?", key
            )
            tags[name] = FORGOTTEN
            forgotten = msgspec.structs.replace(cell, tags=tuple(sorted(tags.items())))
            add_usage(connection, [msgspec.structs.replace(each, cell=forgotten)])
        count += len(tagged)
    return count


class _BudgetText(NamedTuple):
    """A text about a budget that holds the value."""

    update: str
    row: tuple[Any, ...]
    content: Any


_TERMS = (
    ("SELECT id, terms FROM budgets", "UPDATE budgets SET terms = ? WHERE id = ?"),
    ("SELECT id, key FROM shared_budgets", "UPDATE shared_budgets SET key = ? WHERE id = ?"),
)
_ACCOUNTS = (
    (
        "SELECT DISTINCT terms, budget, scope FROM budget_spending JOIN budgets ON budgets.id = budget",
        "UPDATE budget_spending SET scope = ? WHERE budget = ? AND scope = ?",
    ),
    (
        "SELECT key, budget, scope FROM shared_accounts JOIN shared_budgets ON shared_budgets.id = budget",
        "UPDATE shared_accounts SET scope = ? WHERE budget = ? AND scope = ?",
    ),
)


def _budget_texts(connection: sqlite3.Connection, name: str, value: str) -> Iterator[_BudgetText]:
    """Find the terms of budgets that are limited to the tag, and the accounts of those that have one for each value."""
    for query, update in _ACCOUNTS:
        for terms, budget, scope in connection.execute(query).fetchall():
            content = msgspec.json.decode(scope)
            if _per_and_tags(terms)[0] == name and _replaced(content, value, FORGOTTEN) != content:
                yield _BudgetText(update, (budget, scope), content)
    for query, update in _TERMS:
        for number, terms in connection.execute(query).fetchall():
            if _per_and_tags(terms)[1].get(name) == value:
                yield _BudgetText(update, (number,), msgspec.json.decode(terms))


def _per_and_tags(terms: str) -> tuple[str | None, Mapping[str, str]]:
    """Read what a budget is per, and what it is limited to: a shared one's key is a list (`key_of`)."""
    content = msgspec.json.decode(terms)
    if isinstance(content, dict):
        return content.get("per"), content.get("tags", {})
    return content[3], content[2]


def _replaced(content: Any, value: str, word: str) -> Any:
    """Put a word in the place of a value, wherever a text of some JSON has it."""
    if isinstance(content, str):
        return _word(value).sub(lambda _: word, content)
    if isinstance(content, list):
        return [_replaced(each, value, word) for each in content]
    if isinstance(content, dict):
        return {key: _replaced(each, value, word) for key, each in content.items()}
    return content


def _forget_in_budgets(connection: sqlite3.Connection, name: str, value: str) -> int:
    """Replace the value in budgets. One forgotten before keeps its place: the next is `forgotten 2`."""
    texts = list(_budget_texts(connection, name, value))
    for each in texts:
        for number in count(1):
            word = FORGOTTEN if number == 1 else f"{FORGOTTEN} {number}"
            text = encode(_replaced(each.content, value, word)).decode()
            try:
                connection.execute(each.update, (text, *each.row))
            except sqlite3.IntegrityError:
                continue
            break
    return len(texts)
