"""The processes that write a ledger: which of them is still there."""

import os
from pathlib import Path


def birth_of(pid: int) -> str | None:
    """Tell a process's start, as no other with its number has it; None where the system does not say.

    In a container each start has the same number. Source: proc(5), `starttime` in `/proc/PID/stat` and
    `/proc/sys/kernel/random/boot_id` (man-pages 6.9).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()
        stat = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return "ended" if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def is_alive(pid: int, born: str | None) -> bool:
    """Tell whether a process of this host goes on.

    Args:
        pid: Its number.
        born: Its start, as `birth_of` told it. None: another that has its number by now stands for it, alas.
    """
    if os.name != "posix":  # signal 0 would end it there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return born is None or birth_of(pid) in (born, None)
