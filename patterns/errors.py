"""Errors of patterns and their tools, each with a sentence of its own.

RunmeterError
└── PatternError
    ├── UnknownPattern      no pattern of that name is registered (also a ValueError)
    ├── MissingFramework    the library a pattern is built on is not installed (also an ImportError)
    ├── AsyncioRequired     a LangGraph pattern was run on another event loop than asyncio
    ├── RetiredModel        the model has been shut down (also a ValueError)
    ├── ResponseFailed      the model's answer ended in an error, or never ended
    ├── ListenerGone        the WebSocket an answer was streamed to takes no more
    ├── MalformedAnswer     the model's answer has not the shape that was asked for (also a ValueError)
    ├── ConversationLocked  the conversation was locked by another request for too long
    ├── UnknownConversation there is no such conversation, or not any more (also a LookupError)
    ├── ContextTooLong      what the model would have to read is longer than it may be (also a ValueError)
    ├── GateError           the gate of a chain's step raised an error, or gave no answer
    ├── IngestionError      a source cannot be read or indexed, so that it cannot be searched
    └── ToolError           a function call that failed: the model is told, the run goes on
        ├── UnknownTool         there is no tool of that name
        ├── InvalidArguments    the arguments are not what the tool takes
        ├── ToolTimeout         the tool took too long (also a TimeoutError)
        ├── ToolFailed          what the tool returned says that it failed
        ├── CallLimitReached    the run has made all the function calls it may
        ├── TurnLimitReached    the run has taken all the model's answers it may
        ├── AlreadyHandedOver   an earlier call of the same answer handed over to another agent
        └── AnswerCutOff        the answer ended in the middle of the call
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Self

from runmeter.engine import RunmeterError


class PatternError(RunmeterError):
    """Base of every error that patterns raise for reasons of their own."""


class UnknownPattern(PatternError, ValueError):
    """No pattern of that name is registered."""

    def __init__(self, name: str, available: Iterable[str]) -> None:
        super().__init__(f"pattern {name!r} is not registered; available are: {', '.join(available) or 'none'}")
        self.name = name


class MissingFramework(PatternError, ImportError):
    """The library a pattern is built on is not installed."""

    def __init__(self, pattern: str, framework: str, library: str) -> None:
        super().__init__(f"pattern {pattern!r} needs {framework}, but {library!r} is not installed", name=library)
        self.pattern = pattern
        self.framework = framework


class AsyncioRequired(PatternError):
    """A LangGraph pattern was run on another event loop than asyncio."""

    def __init__(self, pattern: str) -> None:
        super().__init__(
            f"pattern {pattern!r} is built on LangGraph, which needs asyncio: run it with asyncio, not with trio"
        )


class RetiredModel(PatternError, ValueError):
    """The model has been shut down: a request to it would be refused."""

    def __init__(self, model: str, shutdown: date, replacement: str) -> None:
        super().__init__(f"model {model!r} was shut down on {shutdown}; use {replacement!r} instead")
        self.model = model
        self.replacement = replacement


class ResponseFailed(PatternError):
    """The model's answer ended in an error, or never ended. `code` is the API's code, or one of ours."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status_code = int(code) if code.isdecimal() and len(code) == 3 else None
        """The HTTP status that some gateways give as the code of an error within an answer: retries go by it."""

    @classmethod
    def said(cls, error: Any, otherwise: str) -> Self:
        """Make the error of what an answer says of itself.

        Args:
            error: Of a response or of a stream: an object or a mapping with a code or a type, and a message; or that.
            otherwise: Its message, if there is none.
        """
        if isinstance(error, str):
            error = {"message": error}
        code, kind, message = (_part(error, name) for name in ("code", "type", "message"))
        return cls(str(code or kind or "error"), str(message or otherwise))


def _part(error: Any, name: str) -> Any:
    return error.get(name) if isinstance(error, Mapping) else getattr(error, name, None)


class ListenerGone(PatternError):
    """The WebSocket that an answer was streamed to takes no more. `reason` is the name of the error it raised."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the WebSocket that the answer was streamed to takes no more of it ({reason})")
        self.reason = reason


class MalformedAnswer(PatternError, ValueError):
    """The model's answer has not the shape that was asked for. `answer` is what it said."""

    def __init__(self, shape: str, why: str, answer: str) -> None:
        super().__init__(f"the answer is not a {shape!r}: {why}")
        self.shape = shape
        self.answer = answer


class IngestionError(PatternError):
    """A source cannot be read or indexed, so that it cannot be searched."""


class GateError(PatternError):
    """The gate of a chain's step raised an error, or gave no answer."""

    def __init__(self, step: str, why: str) -> None:
        super().__init__(f"the gate of step {step!r} failed: {why}")
        self.step = step


class ConversationLocked(PatternError):
    """Another request held the conversation locked for longer than the run may wait."""

    code = "conversation_locked"
    """The API's."""

    def __init__(self, conversation_id: str, waited: float) -> None:
        super().__init__(
            f"another process is at work on conversation {conversation_id!r}, and was for the {waited:g} s that "
            "lock_timeout allows: try again later"
        )
        self.conversation_id = conversation_id


class UnknownConversation(PatternError, LookupError):
    """The conversation does not exist, or not any more."""

    def __init__(self, conversation_id: str, why: str) -> None:
        super().__init__(f"conversation {conversation_id!r} cannot be gone on with: {why}")
        self.conversation_id = conversation_id


class ContextTooLong(PatternError, ValueError):
    """The context is longer than it may be, even without all earlier turns."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"instructions, tools and new messages have {tokens} tokens by themselves, more than the {limit} of "
            "max_context_tokens"
        )
        self.tokens = tokens
        self.limit = limit


class ToolError(PatternError):
    """A function call that failed. The model is told, and the run goes on."""


class UnknownTool(ToolError):
    """The model called a tool that the pattern does not have."""

    def __init__(self, name: str, available: Iterable[str]) -> None:
        super().__init__(f"there is no tool {name!r}; the tools are: {', '.join(available) or 'none'}")


class InvalidArguments(ToolError):
    """The arguments are not what the tool takes."""


class ToolTimeout(ToolError, TimeoutError):
    """The tool took longer than it may."""

    def __init__(self, name: str, timeout: float) -> None:
        super().__init__(f"tool {name!r} did not finish within {timeout:g} s")


class ToolFailed(ToolError):
    """The value that a tool returned says that it failed, as MCP's and LangChain's do."""


class CallLimitReached(ToolError):
    """The run has made all the function calls it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the limit of {limit} function calls is reached, this call was not made; answer with what you have"
        )


class TurnLimitReached(ToolError):
    """The run has taken all the model's answers it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the limit of {limit} answers is reached, the task was not finished; answer with what you have"
        )


class AlreadyHandedOver(ToolError):
    """An earlier call of the same answer handed over to another agent."""

    def __init__(self) -> None:
        super().__init__("the conversation was handed over to another agent by an earlier call of the same answer")


class AnswerCutOff(ToolError):
    """The answer ended in the middle of the call."""

    def __init__(self) -> None:
        super().__init__("the answer was cut off before this call was complete, it was not made")
