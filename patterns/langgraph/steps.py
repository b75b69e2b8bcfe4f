"""The steps of a prompt chain: their templates, their gates, and where a chain goes on after each."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Any, TypeAlias

from msgspec import Meta

from runmeter.engine import ConfigurationError, is_own_failure

from ..config import AtLeastOne, Checked, Name
from ..errors import GateError
from ..functions import call_function
from ..tools.toolbox import refusal_in

STOP = "stop"
"""As `on_failure`: the chain ends without an answer."""
FINISH = "finish"
"""As `then`: the chain ends, and the step's output is the answer."""
RESERVED = (STOP, FINISH, "input", "previous")
"""Words that cannot be a step's name: they mean something else where a step may be named."""

StepName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]*\Z")]


@dataclass(frozen=True, kw_only=True)
class Gate(Checked):
    """A check that can be written as plain data. What it is not told is not checked.

    Raises:
        ConfigurationError: it checks nothing, or `must_match` is not a regular expression.
    """

    must_match: str | None = None
    """A regular expression that is found somewhere in the output. `.` stands for any character, also a line's end."""
    must_contain: Name | tuple[Name, ...] = ()
    """A text that is in the output, or several; upper and lower case count."""
    max_chars: AtLeastOne | None = None
    """How many characters the output has at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.must_contain, str):
            object.__setattr__(self, "must_contain", (self.must_contain,))
        if self.must_match is None and not self.must_contain and self.max_chars is None:
            raise ConfigurationError("Gate: must_match, must_contain or max_chars is needed")
        try:
            re.compile(self.must_match or "")
        except re.error as error:
            raise ConfigurationError(f"Gate.must_match: {error}, is {self.must_match!r}") from error

    def __call__(self, output: str) -> str | None:
        """Tell why the output does not pass; None if it does."""
        reasons = []
        if self.must_match is not None and not re.search(self.must_match, output, re.DOTALL):
            reasons.append(f"it does not match {self.must_match!r}")
        reasons += [f"it does not contain {text!r}" for text in self.must_contain if text not in output]
        if self.max_chars is not None and len(output) > self.max_chars:
            reasons.append(f"it has {len(output)} characters, {self.max_chars} are allowed")
        return "; ".join(reasons) or None


@dataclass(frozen=True, kw_only=True)
class Step(Checked):
    """A step of a chain: a question to the model, made of a template.

    Raises:
        ConfigurationError: a value does not fit; the template cannot be read; the gate cannot be called.
    """

    name: StepName
    """Letters, digits, `_` and `-`, a letter first. Not `input`, `previous`, `stop` or `finish`."""
    prompt: Name
    """What the model is asked. `{input}` stands for the user's text; `{outline}` for the last output of an earlier step
    called `outline`, nothing if it was passed over; `{previous}` for that of the nearest earlier step that was taken,
    or, if there is none, the user's text. Braces of your own are doubled: `{{` and `}}`."""
    instructions: str | None = None
    """What the model is told before all messages, after the system prompt."""
    gate: Any = None
    """Decides whether the chain may go on with this step's output: a `Gate` (in plain data a table of its fields), or a
    function, sync or async, that is given the output. It returns True or None to let it pass; False, or a string that
    says why, not to. A sync one runs in a worker thread."""
    on_failure: Name = STOP
    """Where the chain goes if the gate does not let the output pass: `stop`, or the name of a step, which is then told
    the output and the reason. An earlier step, or this one, makes it another attempt."""
    then: Name | None = None
    """Where it goes otherwise: the name of a step, or `finish`; by default to the next one, and from the last to the
    end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in RESERVED:
            raise ConfigurationError(f"Step.name: {self.name!r} is reserved, as are {', '.join(RESERVED)}")
        if isinstance(self.gate, Mapping):
            object.__setattr__(self, "gate", Gate.from_data(self.gate))
        if self.gate is not None and (not callable(self.gate) or isinstance(self.gate, type)):
            raise ConfigurationError(f"Step.gate of {self.name!r}: give a function or a Gate, not {self.gate!r}")
        if self.gate is None and self.on_failure != STOP:
            raise ConfigurationError(f"Step.on_failure of {self.name!r}: without a gate it cannot fail")
        self.placeholders()

    def placeholders(self) -> set[str]:
        """The names of the placeholders in the template.

        Raises:
            ConfigurationError: it cannot be read as one.
        """
        where = f"Step.prompt of {self.name!r}"
        try:
            parts = list(Formatter().parse(self.prompt))
        except ValueError as error:
            raise ConfigurationError(f"{where}: {error}; braces of your own are doubled: {{{{ and }}}}") from error
        names = set()
        for _, name, form, conversion in parts:
            if form or conversion:
                raise ConfigurationError(f"{where}: {{{name}}} can have no form, as after '!' or ':'")
            if name is not None:
                names.add(name)
        return names


def check_steps(steps: tuple[Step, ...]) -> None:
    """Check that steps fit together.

    Raises:
        ConfigurationError: there are none, two have one name, or one names a step that is not there, or comes later
            than the template it is used in.
    """
    names = [step.name for step in steps]
    if not names:
        raise ConfigurationError("steps: there must be one at least")
    for number, step in enumerate(steps):
        if step.name in names[:number]:
            raise ConfigurationError(f"steps: there are two of the name {step.name!r}")
        _check_name("on_failure", step, step.on_failure, [STOP, *names])
        _check_name("then", step, step.then or FINISH, [FINISH, *names])
        for name in sorted(step.placeholders()):
            _check_name("prompt", step, name, ["input", "previous", *names[:number]])


def _check_name(field: str, step: Step, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ConfigurationError(f"Step.{field} of {step.name!r}: {name!r} is unknown, there are {', '.join(known)}")


async def check_gate(step: Step, output: str) -> str | None:
    """Ask a step's gate for its judgement.

    Returns:
        Why it does not let the output pass; None if it does.

    Raises:
        GateError: it raised an error, or said something that is not an answer.
        BudgetExceeded: it asked a model, and a budget has no room for that.
    """
    if step.gate is None:
        return None
    try:
        said = await call_function(step.gate, output)
    except BaseException as error:
        if not is_own_failure(error) or refusal_in(error) is not None:
            raise
        raise GateError(step.name, f"{type(error).__name__}: {error}") from error
    match said:
        case None | True:
            return None
        case False | "":
            return "the gate did not say why"
        case str():
            return said
        case _:
            raise GateError(step.name, f"it must return True, False, None or a reason, not {said!r}")
