"""One voice for errors: the argument, what was expected, what was found.

Checks read shapes, dtypes and python values. A value that lives on an accelerator is never read: there the check of
:func:`in_range` becomes an assertion on the device, which costs no synchronisation.
"""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import TypeGuard

import torch
from torch import Tensor


def describe(value: object) -> str:
    """Say what `value` is, without reading the values of a tensor."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{describe(key)}: {describe(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(describe, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)" if len(value) == 1 else f"({inside})"
    if value is None or isinstance(value, bool | int | float | str | set):
        return repr(value)
    return f"an object of type {type(value).__name__}"


def expect(
    condition: bool, argument: str, expected: str, found: object, *, error: type[Exception] = ValueError
) -> None:
    """Raise `error` with "argument: expected …, found …" unless `condition` holds.

    `found` is described by :func:`describe`, so hand over the object itself.
    """
    if not condition:
        raise error(f"{argument}: expected {expected}, found {describe(found)}")


def is_real(value: object) -> TypeGuard[float]:
    """Whether `value` is a real number other than a bool; numpy's scalars are."""
    return isinstance(value, Real) and not isinstance(value, bool)


def expect_number(
    argument: str,
    value: object,
    *,
    low: float = float("-inf"),
    high: float = float("inf"),
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Require a python number in the interval from `low` to `high`; an open end excludes its bound."""
    interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
    expected = f"a number in {interval}"
    expect(is_real(value), argument, expected, value, error=TypeError)
    assert is_real(value)
    inside = (low < value if low_open else low <= value) and (value < high if high_open else value <= high)
    expect(inside, argument, expected, value)


def expect_count(argument: str, value: object, *, low: int = 1) -> None:
    """Require a python integer of at least `low`."""
    expected = f"an integer of at least {low}"
    expect(isinstance(value, Integral) and not isinstance(value, bool), argument, expected, value, error=TypeError)
    assert isinstance(value, int | Integral)
    expect(int(value) >= low, argument, expected, value)


def expect_choice(argument: str, value: object, choices: Iterable[object]) -> None:
    """Require one of `choices`."""
    choices = tuple(choices)
    expect(value in choices, argument, f"one of {', '.join(map(repr, choices))}", value)


def expect_floating(argument: str, value: object, shape: str, *, ndim: int | None = None) -> None:
    """Require a floating-point tensor; `shape` says in words or axis letters which one, `ndim` how many axes."""
    expected = f"a floating-point tensor {shape}"
    expect(isinstance(value, Tensor), argument, expected, value, error=TypeError)
    assert isinstance(value, Tensor)
    expect(value.is_floating_point(), argument, expected, value, error=TypeError)
    expect(ndim is None or value.ndim == ndim, argument, expected, value)


def expect_shape(argument: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Require exactly this shape."""
    expect(tuple(value.shape) == shape, argument, f"a tensor of shape {shape}", value)


def expect_device(argument: str, value: Tensor, like: Tensor) -> None:
    """Require the device of `like`."""
    if value.device != like.device:
        raise ValueError(f"{argument}: expected a tensor on {like.device}, found one on {value.device}")


def expect_generator(argument: str, value: object) -> None:
    """Require a torch.Generator or None; a seed is neither."""
    fits = value is None or isinstance(value, torch.Generator)
    expect(fits, argument, "a torch.Generator or None", value, error=TypeError)


def in_range(argument: str, value: Tensor, high: int) -> None:
    """Require integers in [0, `high`), without synchronising with a device.

    On the CPU the error says which values were found. Elsewhere, and while a graph is being traced, the check is
    ``torch._assert_async``, which fails on the device later, with the same expectation in its text.
    """
    expected = f"integers from 0 to {high - 1}"
    expect(
        not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool,
        argument,
        expected,
        value,
        error=TypeError,
    )
    if value.numel() == 0:
        return
    if value.device.type == "cpu" and not torch.compiler.is_compiling():
        low_found, high_found = (int(v) for v in value.aminmax())
        if low_found < 0 or high_found >= high:
            raise ValueError(f"{argument}: expected {expected}, found values from {low_found} to {high_found}")
    else:
        inside = ((value >= 0) & (value < high)).all()
        torch._assert_async(inside, f"{argument}: expected {expected}")  # pyright: ignore[reportPrivateImportUsage]


def expect_labels(argument: str, value: object, count: int, high: int) -> None:
    """Require one integer in [0, `high`) for each of `count` samples; see :func:`in_range`."""
    expected = f"an integer tensor of shape ({count},)"
    expect(isinstance(value, Tensor), argument, expected, value, error=TypeError)
    assert isinstance(value, Tensor)
    expect(tuple(value.shape) == (count,), argument, expected, value)
    in_range(argument, value, high)
