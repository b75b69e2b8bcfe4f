"""Plain text for people: aligned tables and readable times."""

from collections.abc import Sequence

_TIME_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "µs"), (1, "ns"))


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as lines of text: the first column to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def format_time(time_ns: int | None) -> str:
    """Format a time in nanoseconds with three digits and a fitting unit, such as `1.23 s`; None as a dash."""
    if time_ns is None:
        return "-"
    size, unit = next((step for step in _TIME_UNITS if time_ns >= step[0]), _TIME_UNITS[-1])
    value = time_ns / size
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
