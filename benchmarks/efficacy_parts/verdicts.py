"""Paired differences, and what they come to in words."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t


class Difference(NamedTuple):
    """Of two systems on the same divisions: the mean, and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """In words; "no gain" if the interval excludes one of a whole point, "open" if it holds both 0 and that."""
        if self.low > 0 or self.high < 0:
            return "gain" if self.low > 0 else "loss"
        return "no gain" if self.high < 1 else "open"

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def difference(ours: Sequence[float], theirs: Sequence[float], tested: float) -> Difference:
    """How much ours is above theirs, division by division.

    Divisions of one data set are not independent. The variance of the mean is s² (1/n + tested), with the number of
    tested samples over that of training samples (Nadeau and Bengio, Machine Learning 52, 2003), and the interval is
    Student's.
    """
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, n = statistics.mean(pairs), len(pairs)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(pairs) * (1 / n + tested) ** 0.5
    return Difference(mean, mean - half, mean + half)
