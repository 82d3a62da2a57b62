"""Moments of W · dropout(x) + b from all 2^d masks, in float64."""

import itertools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def moments(x: Array, weight: Array, bias: Array, p: float) -> tuple[Array, Array]:
    """Mean "o" and covariance "o o" for one input x "d"."""
    outcomes = []
    for mask in itertools.product([0.0, 1.0], repeat=len(x)):
        probability = 1.0
        for keep in mask:
            probability *= (1 - p) if keep else p
        outcomes.append((probability, weight @ (x * np.array(mask) / (1 - p)) + bias))
    mean = sum(probability * y for probability, y in outcomes)
    covariance = sum(probability * np.outer(y - mean, y - mean) for probability, y in outcomes)
    return np.asarray(mean), np.asarray(covariance)
