#!/usr/bin/env bash
# SQLite 3.54.1 (apsw 3.54.1.0; 3.40.1 as well): PRAGMA auto_vacuum on a new file without a table is heeded only before
# PRAGMA journal_mode = WAL. After it no error is raised, auto_vacuum stays off, and incremental_vacuum frees nothing. Seen
# 2026-11-30, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check apsw==3.54.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import apsw

VACUUM, LOG = "PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL"

print("SQLite", apsw.sqlite_lib_version())
for name, pragmas in (("auto_vacuum first", (VACUUM, LOG)), ("journal_mode first", (LOG, VACUUM))):
    connection = apsw.Connection(f"{name}.db")
    for pragma in pragmas:
        connection.execute(pragma).fetchall()
    connection.execute("CREATE TABLE page (data BLOB)")
    with connection:
        connection.executemany("INSERT INTO page VALUES (?)", [(b"x" * 4000,) for _ in range(1000)])
    connection.execute("DELETE FROM page").fetchall()
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    mode, pages = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("auto_vacuum", "page_count"))
    print(f"{name}: auto_vacuum is {mode}, and {pages} pages are left of 1,000 deleted rows")
    connection.close()
PYTHON
diff - "$folder/seen" <<'EXPECTED' && echo "as found"
SQLite 3.54.1
auto_vacuum first: auto_vacuum is 2, and 3 pages are left of 1,000 deleted rows
journal_mode first: auto_vacuum is 0, and 1004 pages are left of 1,000 deleted rows
EXPECTED
