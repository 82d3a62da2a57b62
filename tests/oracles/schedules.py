"""Diagnosing & Re-learning (ECCV 2024), by loops in float64."""

import math


def purity(clusters, labels) -> float:
    agree = 0
    for k in set(clusters):
        inside = [y for cluster, y in zip(clusters, labels, strict=True) if cluster == k]
        agree += max(inside.count(y) for y in inside)
    return agree / len(labels)


def strength(purity_train: float, purity_val: float, rate: float) -> float:
    x = rate * abs(purity_train - purity_val)
    return (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x))


def mixed(now, first, alpha: float) -> list[float]:
    return [alpha * a + (1.0 - alpha) * b for a, b in zip(first, now, strict=True)]
