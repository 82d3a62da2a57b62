"""How long some functions take inside a step: they are wrapped while the benchmark runs, and restored afterwards."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Stopwatch:
    """Seconds inside wrapped functions, by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - began

        return timed

    @contextmanager
    def watching(self, name: str, attribute: str, *places: Any) -> Iterator[None]:
        """Time the function `attribute` of the modules or classes `places` in the block."""
        originals = {place: vars(place)[attribute] for place in places}
        for place, function in originals.items():
            setattr(place, attribute, self.wrap(name, function))
        try:
            yield
        finally:
            for place, function in originals.items():
                setattr(place, attribute, function)
