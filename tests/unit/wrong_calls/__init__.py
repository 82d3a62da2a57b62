"""Wrong calls, one table a room. What each must raise, and what its message must name."""

from collections.abc import Callable
from typing import NamedTuple


class Case(NamedTuple):
    """A wrong call, the error, and the words that its message must hold: the argument, then what is special.

    Make what the call works on outside of it, in the module: all of that must be as it was afterwards.
    """

    name: str
    call: Callable[[], object]
    error: type[Exception]
    words: tuple[str, ...]
