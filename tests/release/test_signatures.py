"""What an editor shows: every public function, class and method names its arguments and their real defaults."""

import ast
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import balancekit

ROOMS = [module.name for module in pkgutil.iter_modules(balancekit.__path__) if not module.name.startswith("_")]
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (balancekit, *(importlib.import_module(f"balancekit.{room}") for room in ROOMS))
    for name in module.__all__
}
FORWARDED = ("forward", "stream", "compile", "param_groups")  # arguments of the user's own model, or torch's


def is_called(value: Any) -> bool:
    """Whether anybody calls it: neither an alias of types, nor a protocol, nor a warning."""
    if inspect.isclass(value):
        return not getattr(value, "_is_protocol", False) and not issubclass(value, Warning)
    return callable(value)


def methods(value: Any) -> dict[str, Any]:
    """The public ones that a class itself defines."""
    own = vars(value) if inspect.isclass(value) else {}
    public = {key: getattr(value, key) for key in own if key[0] != "_" or key == "__call__"}
    return {key: method for key, method in public.items() if callable(method)}


CALLED = {name: value for name, value in PUBLIC.items() if is_called(value)}
CALLED |= {f"{name}.{key}": method for name, value in CALLED.items() for key, method in methods(value).items()}


def is_readable(default: Any) -> bool:
    """A literal, or a function that has a public name itself."""
    try:
        return ast.literal_eval(repr(default)) == default
    except (SyntaxError, ValueError):
        return any(default is value for value in PUBLIC.values())


@pytest.mark.parametrize("name", CALLED)
def test_arguments_and_defaults_are_shown(name: str) -> None:
    parameters = [p for p in inspect.signature(CALLED[name]).parameters.values() if p.name != "self"]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    assert named or not parameters or name.endswith(FORWARDED)
    for parameter in named:
        shown = parameter.default is parameter.empty or is_readable(parameter.default)
        assert shown, f"{parameter.name} has the default {parameter.default!r}"


def test_all_rooms_and_their_methods_are_looked_at() -> None:
    assert len(ROOMS) == 14
    assert {"balancekit.Rebalancer.__call__", "balancekit.DeepEnsemble.build", "balancekit.fused.dropout_std"} <= {
        *CALLED
    }
