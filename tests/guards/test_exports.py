"""The packages' public names: what `__all__` promises is there, and nothing is promised twice."""

import importlib
import inspect

import pytest

import runmeter
import runmeter.engine

PACKAGES = ["runmeter", "runmeter.engine", "runmeter.patterns", "runmeter.telemetry", "runmeter.simulator"]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == sorted(set(package.__all__), key=package.__all__.index), "no name twice"
    for public in package.__all__:
        thing = getattr(package, public)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, f"{name}.{public} has no docstring"


def test_the_facade_re_exports_the_engine_and_nothing_else() -> None:
    for name in set(runmeter.__all__) - {"__version__", "meter", "unmeter"}:  # and the patterns' two names for clients
        assert getattr(runmeter, name) is getattr(runmeter.engine, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    for name in PACKAGES:
        with pytest.raises(AttributeError):
            _ = importlib.import_module(name).no_such_name


def test_what_is_imported_on_first_use_is_listed_before() -> None:
    assert set(runmeter.__all__) <= set(dir(runmeter))
    assert set(runmeter.engine.__all__) <= set(dir(runmeter.engine))
