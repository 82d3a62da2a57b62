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
