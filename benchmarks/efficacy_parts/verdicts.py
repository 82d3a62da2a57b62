"""Paired differences, and what they come to in words."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t


class Difference(NamedTuple):
    """Of two systems on the same divisions: the mean, and its 95 % interval (Student)."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        return "gain" if self.low > 0 else "loss" if self.high < 0 else "no gain"

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """How much ours is above theirs, division by division."""
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.mean(pairs)
    half = float(t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs) / len(pairs) ** 0.5
    return Difference(mean, mean - half, mean + half)
