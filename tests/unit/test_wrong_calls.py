"""Every wrong call is an error that names the argument, what was expected and what was found, and changes nothing."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

import pytest

import balancekit
from tests.state_hash import state_hash
from tests.unit import wrong_calls
from tests.unit.wrong_calls import Case

ROOMS = [
    importlib.import_module(f"{wrong_calls.__name__}.{module.name}")
    for module in pkgutil.iter_modules(wrong_calls.__path__)
]
CASES = [
    pytest.param(room, case, id=f"{room.__name__.split('.')[-1]}-{case.name}") for room in ROOMS for case in room.CASES
]


def world(room: ModuleType, case: Case) -> str:
    """The hash of all that the table of a room holds, and of what the call itself closes over."""
    held = {name: value for name, value in vars(room).items() if name != "CASES" and not name.startswith("__")}
    return state_hash(held, case.call)


@pytest.mark.parametrize(("room", "case"), CASES)
def test_wrong_call(room: ModuleType, case: Case) -> None:
    before = world(room, case)
    with pytest.raises(case.error) as caught:
        case.call()
    assert type(caught.value) is case.error
    argument, expected, found = str(caught.value).partition(": expected ")
    assert expected
    assert re.search(rf"(?<!\w){re.escape(case.words[0])}(?!\w)", argument)
    assert ", found " in found
    for word in case.words:
        assert word in str(caught.value)
    assert world(room, case) == before


# what may be called without a wrong call in the tables, and why
EXCEPT = {
    "plain records, whose makers check": {
        *("Acted", "Alarm", "GaussianTokens", "Modulated", "Output", "ProbabilityStatistics", "Step", "Surgery"),
        *("Trainable", "ValueStatistics"),
    },
    "no arguments": {"Sum"},
    "a base, whose heirs are here": {"Modulator"},
    "kernels of rules, which the Rebalancer calls in every step": {"mmpareto_weights", "regrad_weights"},
}


def is_called(value: Any) -> bool:
    """Whether anybody calls it: neither an alias of types, nor a protocol, nor a warning."""
    if inspect.isclass(value):
        return not getattr(value, "_is_protocol", False) and not issubclass(value, Warning)
    return inspect.isfunction(value)


def named(value: Any, room: ModuleType, seen: set[int]) -> Iterator[str]:
    """Every name that a call mentions, through the helpers and objects of its table."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if inspect.isfunction(value) and value.__module__.startswith("tests"):
        codes = [value.__code__]
        while codes:
            code = codes.pop()
            codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
            for name in code.co_names:
                yield name
                yield from named(vars(room).get(name), room, seen)
        for held in (*(cell.cell_contents for cell in value.__closure__ or ()), *(value.__defaults__ or ())):
            yield from named(held, room, seen)
    elif inspect.isclass(value) or inspect.isfunction(value):
        yield value.__name__
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from named(each, room, seen)
    else:
        yield type(value).__name__


def test_whatever_is_public_is_called_wrongly() -> None:
    lacking = set()
    for name in (module.name for module in pkgutil.iter_modules(balancekit.__path__) if module.name[0] != "_"):
        public = importlib.import_module(f"balancekit.{name}")
        tables = [room for room in ROOMS if (name == "fused") == room.__name__.endswith(".fused")]  # the same names
        mentioned = {each for room in tables for case in room.CASES for each in named(case.call, room, set())}
        lacking |= {each for each in public.__all__ if is_called(getattr(public, each))} - mentioned
    assert lacking == set().union(*EXCEPT.values())


def test_there_are_many() -> None:
    assert len(CASES) >= 950
