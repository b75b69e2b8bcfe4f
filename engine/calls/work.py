"""Work that a run does beside its requests: a tool's, an assistant's on a thread, a search for passages."""

from math import isfinite
from typing import Literal

import msgspec

from ..errors import ConfigurationError
from ..events import AssistantRun, FunctionCall, Retrieval, Status
from ..validation.checks import Count, Id, Message, Name, count_of, id_of, name_of
from .endings import status_of
from .operation import MeteredRun, Operation


class _SoundToolCall(msgspec.Struct, gc=False):
    name: Name
    call_id: Id | None
    error_type: Name | None
    error_message: Message | None


class ToolCall(Operation):
    """The execution of a tool."""

    _of_tool = True
    _sound = _SoundToolCall

    def __init__(self, execution: MeteredRun, name: str, call_id: str | None) -> None:
        super().__init__(execution)
        self.name = name
        self.call_id = call_id

    def _tidy(self) -> None:
        super()._tidy()
        self.name, self.call_id = name_of(self.name), id_of(self.call_id)

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            FunctionCall,
            self.trace,
            name=self.name,
            call_id=self.call_id,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            error_type=self.error_type,
            error_message=self.error_message,
        )


class _SoundAssistantCall(msgspec.Struct, gc=False):
    assistant: Name
    thread_id: Id | None
    thread: Literal["created", "resumed"] | None
    steps: Count
    error_type: Name | None
    error_message: Message | None


class AssistantCall(Operation):
    """The work of an assistant on a thread."""

    _sound = _SoundAssistantCall

    def __init__(
        self,
        execution: MeteredRun,
        assistant: str,
        thread_id: str | None,
        thread: Literal["created", "resumed"] | None,
    ) -> None:
        super().__init__(execution)
        self.assistant = assistant
        self.thread_id = thread_id
        self.thread: Literal["created", "resumed"] | None = thread
        self.steps = 0
        """Turns of the loop: count them as they begin."""

    def _tidy(self) -> None:
        super()._tidy()
        self.assistant, self.thread_id = name_of(self.assistant), id_of(self.thread_id)
        self.thread = self.thread if self.thread in ("created", "resumed") else None
        self.steps = count_of(self.steps) or 0

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            AssistantRun,
            self.trace,
            assistant=self.assistant,
            thread_id=self.thread_id,
            thread=self.thread,
            steps=self.steps,
            status=status_of(error) if error or not self.error_type else Status.ERROR,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            error_type=self.error_type,
            error_message=self.error_message,
        )


class _SoundRetrieval(msgspec.Struct, gc=False):
    source: Name
    requested: Count | None
    documents: Count
    top_score: float | None
    error_type: Name | None
    error_message: Message | None


class RetrievalCall(Operation):
    """A search for passages. Record its result; if none was recorded, it found nothing."""

    _sound = _SoundRetrieval

    def __init__(self, execution: MeteredRun, source: str, requested: int | None) -> None:
        super().__init__(execution)
        self.source = source
        self.requested = requested
        self.documents = 0
        self.top_score: float | None = None

    def record(self, documents: int, top_score: float | None = None) -> None:
        """Record the passages found. The last call counts.

        Args:
            documents: How many passages.
            top_score: The best passage's score, on the source's own scale; None if there is none.

        Raises:
            ConfigurationError: `documents` is not a count, or the score not a number.
        """
        # Local indexes answer in numpy's numbers, which no codec takes.
        try:
            found, score = count_of(int(documents)), None if top_score is None else float(top_score)
        except (TypeError, ValueError, OverflowError):
            found, score = None, None
        if found is None:
            said = f"{documents!r:.100} and {top_score!r:.100}"
            raise ConfigurationError(f"record takes a number of documents, 0 or more, and a score, not {said}")
        self.documents, self.top_score = found, score if score is not None and isfinite(score) else None

    def _tidy(self) -> None:
        super()._tidy()
        self.source = name_of(self.source)
        self.requested = count_of(self.requested)
        self.documents = count_of(self.documents) or 0

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            Retrieval,
            self.trace,
            source=self.source,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            documents=self.documents,
            top_score=self.top_score,
            requested=self.requested,
            error_type=self.error_type,
            error_message=self.error_message,
        )
