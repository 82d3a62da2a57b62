"""Measures of disagreement between samples, with loops, in float64."""

import math
from collections import Counter
from collections.abc import Sequence

Samples = Sequence[Sequence[float]]  # "s c": the samples of one input


def entropy(distribution: Sequence[float]) -> float:
    return -sum(q * math.log(q) for q in distribution if q > 0)


def predictive_entropy(samples: Samples) -> float:
    classes = range(len(samples[0]))
    return entropy([sum(sample[c] for sample in samples) / len(samples) for c in classes])


def expected_entropy(samples: Samples) -> float:
    return sum(entropy(sample) for sample in samples) / len(samples)


def mutual_information(samples: Samples) -> float:
    """Mean Kullback-Leibler divergence from a sample to the mean distribution."""
    classes = range(len(samples[0]))
    mean = [sum(sample[c] for sample in samples) / len(samples) for c in classes]
    total = 0.0
    for sample in samples:
        total += sum(sample[c] * math.log(sample[c] / mean[c]) for c in classes if sample[c] > 0)
    return total / len(samples)


def variation_ratio(samples: Samples) -> float:
    votes = Counter(max(range(len(sample)), key=sample.__getitem__) for sample in samples)
    return 1 - max(votes.values()) / len(samples)


def dirichlet_information(concentration: Sequence[float]) -> float:
    """Mutual information of infinitely many samples from a Dirichlet distribution.

    The expectation of -p_c log p_c is m_c (digamma(a_0 + 1) - digamma(a_c + 1)), where m_c = a_c / a_0.
    """
    total = sum(concentration)
    expected = sum(a / total * (_digamma(total + 1) - _digamma(a + 1)) for a in concentration)
    return entropy([a / total for a in concentration]) - expected


def _digamma(x: float) -> float:
    """By recurrence to x >= 20, then the asymptotic series."""
    shift = 0.0
    while x < 20:
        shift -= 1 / x
        x += 1
    return shift + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)
