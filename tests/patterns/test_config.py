"""Configs and their parts: checked when made, made of plain data, and of more general ones."""

import dataclasses
import inspect
import pickle
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from runmeter.engine import ConfigurationError
from runmeter.patterns import OpenAIPatternConfig, PatternConfig
from runmeter.patterns.config import AtLeastOne, Checked, Count, Name, Seconds, check_config, specialise


@dataclass(frozen=True, kw_only=True)
class Part(Checked):
    name: Name
    size: Count = 1
    within: "Part | None" = None


@dataclass(frozen=True, kw_only=True)
class Whole(PatternConfig):
    parts: tuple[Part, ...] = (Part(name="a"),)
    chief: Part = Part(name="chief")
    spare: Part | None = None
    by_name: Mapping[str, Part] = field(default_factory=dict)
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    mood: Literal["calm", "hasty"] = "calm"
    rounds: AtLeastOne = 3
    pause: Seconds | None = None
    judge: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None and not callable(self.judge):
            raise ConfigurationError(f"{type(self).__name__}.judge: a function is needed")


TABLE = """
    name = "whole"
    max_iterations = 4
    share = 1
    chief = { name = "boss", size = 7 }
    spare = { name = "spare", within = { name = "inner" } }

    [[parts]]
    name = "one"

    [[parts]]
    name = "two"
    size = 2

    [by_name.left]
    name = "hand"
"""


def test_a_config_is_made_of_a_toml_table() -> None:
    config = Whole.from_data(tomllib.loads(TABLE))
    assert config == Whole(
        name="whole",
        max_iterations=4,
        share=1.0,
        chief=Part(name="boss", size=7),
        spare=Part(name="spare", within=Part(name="inner")),
        parts=(Part(name="one"), Part(name="two", size=2)),
        by_name={"left": Part(name="hand")},
    )
    assert type(config.share) is float
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes


def test_parts_may_be_plain_data_or_made_already() -> None:
    mixed: Any = [{"name": "one"}, Part(name="two")]
    assert Whole(parts=mixed).parts == (Part(name="one"), Part(name="two"))
    made = Part(name="x")
    assert Whole(chief=made).chief is made
    assert Whole().parts == (Part(name="a"),)


@given(
    st.lists(st.builds(Part, name=st.text(min_size=1), size=st.integers(0, 9))),
    st.floats(0, 1),
    st.sampled_from(["calm", "hasty"]),
    st.none() | st.floats(min_value=0.1, allow_nan=False),
)
def test_plain_data_makes_what_it_was_made_of(parts: list[Part], share: float, mood: Any, pause: float | None) -> None:
    config = Whole(parts=tuple(parts), share=share, mood=mood, pause=pause)
    assert Whole.from_data(dataclasses.asdict(config)) == config


NESTED: list[Any] = []
for _ in range(20_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"parts": [{"name": "a", "size": -1}]}, r"Part\.size: Expected `int` >= 0, is -1"),
        ({"parts": [{"size": 1}]}, "Part missing .*'name'"),
        ({"parts": [{"name": "a", "sise": 1}]}, "Part has no 'sise': did you mean 'size'"),
        ({"chief": {"name": "a", "colour": 1}}, "Part has no 'colour': there are name, size, within"),
        ({"spare": {"name": ""}}, r"Part\.name: .*length >= 1"),
        ({"spare": {"name": "a", "within": {"nam": "b"}}}, "did you mean 'name'"),
        ({"by_name": {"left": {"nam": "a"}}}, "did you mean 'name'"),
        ({"by_name": {"left": 3}}, r"Whole\.by_name: Expected"),
        ({"parts": ["a"]}, r"Whole\.parts: Expected"),
        ({"parts": "a"}, r"Whole\.parts: Expected `array`"),
        ({"chief": None}, r"Whole\.chief: Expected"),
        ({"chief": "boss"}, r"Whole\.chief: Expected"),
        ({"share": 1.01}, r"Whole\.share: .*<= 1"),
        ({"share": float("nan")}, r"Whole\.share: "),
        ({"share": "half"}, r"Whole\.share: .*got `str`"),
        ({"mood": "sad"}, r"Whole\.mood: .*'sad'"),
        ({"rounds": 0}, r"Whole\.rounds: .*>= 1"),
        ({"rounds": True}, r"Whole\.rounds: .*got `bool`"),
        ({"pause": 0}, r"Whole\.pause: .*> 0"),
        ({"judge": "me"}, r"Whole\.judge: a function is needed"),
        ({"max_iterations": "many"}, r"Whole\.max_iterations: .*got `str`"),
        ({"share": NESTED}, r"Whole\.share: .*is a list that nests too deeply"),
        ({"max_iteration": 3}, "Whole has no 'max_iteration': did you mean 'max_iterations'"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Whole.from_data(values)
    with pytest.raises((ConfigurationError, TypeError)):
        Whole(**values)


def test_a_function_is_kept_as_it_is() -> None:
    assert Whole(judge=print).judge is print


def test_a_config_of_the_right_kind_is_used_as_it_is() -> None:
    config = Whole()
    assert specialise("whole", Whole, config) is config
    assert specialise("whole", PatternConfig, config) is config, "a more special one will do"


def test_a_more_general_config_is_made_special() -> None:
    assert specialise("whole", Whole, PatternConfig(name="x", max_iterations=2)) == Whole(name="x", max_iterations=2)


def test_nothing_that_was_said_is_dropped() -> None:
    with pytest.raises(
        ConfigurationError, match="'whole' needs a config of type Whole, not OpenAIPatternConfig: it has"
    ):
        specialise("whole", Whole, OpenAIPatternConfig())


@pytest.mark.parametrize(("given", "named"), [({}, "not dict"), (PatternConfig, "not the class PatternConfig")])
def test_the_kind_that_is_needed_is_named(given: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'whole' needs a config of type Whole, {named}"):
        check_config("whole", Whole, given)
    check_config("whole", PatternConfig, Whole())


SPECIAL = [
    "langgraph.augmented_llm:AugmentedLLMConfig",
    "langgraph.parallelization:ParallelizationConfig",
]


@pytest.mark.parametrize("path", SPECIAL)
def test_the_patterns_configs_say_something_by_default(path: str) -> None:
    module, name = path.split(":")
    kind: type[OpenAIPatternConfig] = getattr(import_module(f"runmeter.patterns.{module}"), name)
    assert specialise("x", kind, OpenAIPatternConfig(name="x")).name == "x"
    config = kind()
    again = kind.from_data({each.name: getattr(config, each.name) for each in fields(kind)})
    assert again == config
    for own in inspect.get_annotations(kind):
        wrong: dict[str, Any] = {own: object()}
        with pytest.raises(ConfigurationError, match=own):
            kind(**wrong)


@pytest.mark.parametrize(
    "url",
    [
        "https://mine.openai.azure.com/openai/deployments/fast/chat/completions?api-version=2024-10-21",
        "https://mine.openai.azure.com/openai/deployments/fast/",
        "https://gateway.example/v1?team=blue",
    ],
)
def test_the_address_of_a_deployment_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match="AsyncAzureOpenAI"):
        OpenAIPatternConfig(base_url=url)
    OpenAIPatternConfig(base_url="https://mine.openai.azure.com/openai/v1")
