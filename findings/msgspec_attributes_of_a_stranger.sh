#!/usr/bin/env bash
# msgspec 0.22.0: convert(object, Struct, from_attributes=True) takes an object that has none of the struct's fields.
# A dict without any of them is the same, but there unknown keys can be forbidden: forbid_unknown_fields does not reach
# attributes. So where all fields have defaults, the wrong object passes for an empty one. Seen 2026-11-29, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check msgspec==0.22.0
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import msgspec


class Usage(msgspec.Struct, forbid_unknown_fields=True):
    input: int = 0
    output: int = 0


class Answer:
    """An answer whose usage stands one level deeper: handed over by mistake in its usage's place."""

    def __init__(self):
        self.text = "hello"
        self.usage = {"input": 7, "output": 9}


print("object:", msgspec.convert(Answer(), Usage, from_attributes=True))
try:
    print("dict:", msgspec.convert(vars(Answer()), Usage))
except msgspec.ValidationError as error:
    print("dict:", error)
PYTHON
diff - "$folder/seen" <<'EXPECTED' && echo "as found"
object: Usage(input=0, output=0)
dict: Object contains unknown field `text`
EXPECTED
