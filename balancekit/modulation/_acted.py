"""Whoever listens is told what the actuators did: it is how diagnostics know that a coefficient was applied at all."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor

from balancekit._checks import expect


class Acted(NamedTuple):
    """An actuator was called."""

    # "backward": gradients to come; those that there are: "gradients" by one factor a branch, "noise" otherwise,
    # "freeze"; "updates"; "features"
    on: str
    coefficients: Mapping[str, Tensor | float]


Listener = Callable[[Acted], None]
_LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block, call `listener` with every :class:`Acted`."""
    expect(callable(listener), "listener", "a function", listener, error=TypeError)
    _LISTENERS.set((*_LISTENERS.get(), listener))
    try:
        yield
    finally:  # no reset to what was before: two blocks may end in any order
        _LISTENERS.set(tuple(other for other in _LISTENERS.get() if other is not listener))


def tell(on: str, coefficients: Mapping[str, Tensor | float]) -> None:
    """Tell the listeners."""
    for listener in _LISTENERS.get():
        listener(Acted(on, coefficients))
