"""Dropout on a fixed feature, by passes: every mask of T passes is enumerated, in float64."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def std_over_passes(x: Array, masks: Array, p: float) -> Array:
    """Unbiased standard deviation over T passes of x · mask / (1-p); masks "t ..." of zeros and ones."""
    passes = np.stack([x * mask / (1 - p) for mask in masks])
    return np.std(passes, axis=0, ddof=1)


def law_of_std(p: float, t: int) -> dict[float, float]:
    """Values of the standard deviation at |x| = 1 and their probabilities, from all 2^t masks."""
    law: dict[float, float] = {}
    for mask in itertools.product([0.0, 1.0], repeat=t):
        probability = 1.0
        for keep in mask:
            probability *= (1 - p) if keep else p
        value = round(float(std_over_passes(np.ones(()), np.array(mask), p)), 12)
        law[value] = law.get(value, 0.0) + probability
    return law


def law_of_std_by_counts(p: float, t: int) -> dict[float, float]:
    """The same from the t + 1 numbers of passes that keep the element, for more passes than can be enumerated."""
    law: dict[float, float] = {}
    for kept in range(t + 1):
        probability = math.comb(t, kept) * (1 - p) ** kept * p ** (t - kept)
        value = round(float(std_over_passes(np.ones(()), np.arange(t) < kept, p)), 12)
        law[value] = law.get(value, 0.0) + probability
    return law


def expected_exponential(size: Array, p: float, rate: float, t: int) -> Array:
    """E[exp(-rate · std)] of elements of absolute value `size`, from the counts."""
    law = law_of_std_by_counts(p, t)
    return np.sum([probability * np.exp(-rate * value * size) for value, probability in law.items()], axis=0)


def expected_confidence(x: Array, p: float, rate: float, t: int) -> Array:
    """mean over channels of E[exp(-rate · std)], the expectation over all 2^t masks of each element."""
    total = np.zeros_like(x)
    for mask in itertools.product([0.0, 1.0], repeat=t):
        probability = 1.0
        for keep in mask:
            probability *= (1 - p) if keep else p
        total += probability * np.exp(-rate * std_over_passes(x, np.array(mask), p))
    return total.mean(-1)


def limit_confidence(x: Array, p: float, rate: float) -> Array:
    """mean over channels of exp(-rate · sd of one dropped element), the sd from its two outcomes."""
    out = np.zeros(x.shape[:-1])
    for index in np.ndindex(out.shape):
        values = []
        for element in x[index]:
            kept = element / (1 - p)
            mean = (1 - p) * kept
            variance = (1 - p) * (kept - mean) ** 2 + p * (0 - mean) ** 2
            values.append(np.exp(-rate * np.sqrt(variance)))
        out[index] = np.mean(values)
    return out
