"""Instructions of this package's own code, counted: what libraries and C code do is not in them."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

import runmeter

Work: TypeAlias = Callable[[], object]
OWN = str(Path(runmeter.__file__).parent)

if sys.version_info >= (3, 12):

    def instructions(work: Work, *, under: str = OWN) -> int:
        """How many instructions this takes of code in a folder: our own, or all Python code with none named."""
        executed = 0

        def take(code: CodeType, _: int) -> object:
            nonlocal executed
            if not code.co_filename.startswith(under):
                return sys.monitoring.DISABLE
            executed += 1
            return None

        tool, event = sys.monitoring.PROFILER_ID, sys.monitoring.events.INSTRUCTION
        sys.monitoring.use_tool_id(tool, "costs")
        try:
            sys.monitoring.register_callback(tool, event, take)
            sys.monitoring.set_events(tool, event)
            work()
        finally:
            sys.monitoring.set_events(tool, 0)
            sys.monitoring.free_tool_id(tool)
        return executed

else:

    def instructions(work: Work, *, under: str = OWN) -> int:
        """How many instructions this takes of code in a folder: our own, or all Python code with none named.

        From Python 3.13 on a trace function misses most.
        """
        executed = 0

        def take(frame: FrameType, event: str, _: object) -> Any:
            nonlocal executed
            if event == "call":
                if not frame.f_code.co_filename.startswith(under):
                    return None
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
            executed += event == "opcode"
            return take

        outer = sys.gettrace()
        sys.settrace(take)
        try:
            work()
        finally:
            sys.settrace(outer)
        return executed
