"""Statistics of samples with two passes and loops, in exact arithmetic."""

import math
from collections.abc import Sequence
from fractions import Fraction


def mean(values: Sequence[float]) -> float:
    return float(sum(map(Fraction, values)) / len(values))


def variance(values: Sequence[float], *, freedom: int = 0) -> float:
    exact = [Fraction(value) for value in values]
    centre = sum(exact) / len(exact)
    return float(sum((value - centre) ** 2 for value in exact) / (len(exact) - freedom))


def mixture_variance(means: Sequence[float], variances: Sequence[float]) -> float:
    """Second moment of the mixture of N(m_s, v_s) minus the square of its mean."""
    second = sum(Fraction(m) ** 2 + Fraction(v) for m, v in zip(means, variances, strict=True)) / len(means)
    return float(second - (sum(map(Fraction, means)) / len(means)) ** 2)


def spread(samples: Sequence[Sequence[float]]) -> float:
    """Of the samples "s d" of one token: root mean square over channels of the unbiased standard deviation."""
    channels = list(zip(*samples, strict=True))
    return math.sqrt(mean([math.sqrt(variance(channel, freedom=1)) ** 2 for channel in channels]))
