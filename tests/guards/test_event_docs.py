"""docs/events.md: each event and each field, as the code has them."""

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from runmeter.engine import Event

DOCUMENT = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE))
ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \| (.+?) \| (.*?) \|$", re.MULTILINE)
EVENTS: list[Any] = [event for kind in get_args(Event) for event in (get_args(kind) or (kind,))]


def test_every_event_has_a_section() -> None:
    assert set(SECTIONS) == {"Event", *(event.__name__ for event in EVENTS)}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_field_has_a_row(event: Any) -> None:
    common = {name for name, *_ in ROW.findall(SECTIONS["Event"])}
    rows = {name: (default, meaning) for name, _, default, meaning in ROW.findall(SECTIONS[event.__name__])}
    fields = {field.name: field for field in msgspec.structs.fields(event)}
    assert common | set(rows) == set(fields)
    for name, (default, meaning) in rows.items():
        assert (default == "required") is fields[name].required, name
        assert meaning, name
