"""Wrong calls, one table a room. What each must raise, and what its message must name."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn


class Case(NamedTuple):
    """A wrong call: the error, the words its message must hold, and the modules that it must leave as they were."""

    name: str
    call: Callable[[], object]
    error: type[Exception]
    words: tuple[str, ...]
    watched: Sequence[nn.Module] = ()
