"""Progress shown while it runs: a bar on a terminal, else a line now and then."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Watch:
    """Tells what is going on, on the standard error.

    Args:
        console: Where, if not there.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, what: str, steps: int) -> None:
        """Begin a piece of work of so many steps."""
        self._progress.reset(self._task, total=steps, description=escape(what))
        if not self.console.is_terminal:
            self.console.print(what, markup=False, highlight=False, soft_wrap=True)

    def step(self) -> None:
        """Count a step that is done."""
        self._progress.advance(self._task)

    def tell(self, what: str) -> None:
        """Print a line that stays on the screen."""
        self.console.print(what, style="yellow", markup=False, highlight=False, soft_wrap=True)
