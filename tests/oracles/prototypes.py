"""Prototype losses and banks, sample by sample: arXiv 2402.19298, Eq. 6-7; arXiv 2211.07089, Eq. 6, 7, 10, 12, 13."""

import math


def euclidean(x: list[float], y: list[float]) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


def probabilities(feature: list[float], prototypes: list[list[float]], seen: list[bool]) -> dict[int, float]:
    """PMR Eq. 7 over the classes that were seen."""
    e = {k: math.exp(-euclidean(feature, p)) for k, p in enumerate(prototypes) if seen[k]}
    return {k: value / sum(e.values()) for k, value in e.items()}


def cross_entropies(features, labels, prototypes, seen) -> list[float | None]:
    """MMDG Eq. 7 for each sample; None for a sample of a class that was never seen."""
    losses: list[float | None] = []
    for feature, label in zip(features, labels, strict=True):
        p = probabilities(feature, prototypes, seen)
        losses.append(-math.log(p[label]) if label in p else None)
    return losses


def entropies(features, prototypes, seen) -> list[float]:
    """The H of PMR Eq. 13 for each sample."""
    return [-sum(q * math.log(q) for q in probabilities(f, prototypes, seen).values()) for f in features]


def single_side(live: list[bool], domain: list[int]) -> list[int]:
    """SSDG's labels as MMDG uses them: one class for all genuine samples, one for each domain's attacks."""
    labels = []
    for genuine, d in zip(live, domain, strict=True):
        if genuine:
            labels.append(0)
        else:
            labels.append(d + 1)
    return labels


class Bank:
    """Class means by lists (PMR Eq. 6), then the moving average (PMR Eq. 12) from the second sight on."""

    def __init__(self, num_classes: int, decay: float) -> None:
        self.decay = decay
        self.prototypes: list[list[float] | None] = [None] * num_classes

    def update(self, features: list[list[float]], labels: list[int]) -> None:
        for k, old in enumerate(self.prototypes):
            members = [f for f, label in zip(features, labels, strict=True) if label == k]
            if not members:
                continue
            mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
            if old is None:
                self.prototypes[k] = mean
            else:
                self.prototypes[k] = [self.decay * o + (1 - self.decay) * n for o, n in zip(old, mean, strict=True)]
