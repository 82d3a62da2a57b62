"""Scores of predictions, for one input at a time, in exact or long decimal arithmetic."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise, permutations


def negative_log_likelihood(logits: Sequence[Sequence[float]], label: int) -> float:
    """Of samples of logits "s c", by way of probabilities that Decimal does not round to 0."""
    total = Decimal(0)
    for sample in logits:
        weights = [Decimal(z).exp() for z in sample]
        total += weights[label] / sum(weights)
    return float(-(total / len(logits)).ln())


def brier_score(probs: Sequence[Sequence[float]], label: int) -> float:
    """Of samples of probabilities "s c"."""
    score = 0.0
    for c in range(len(probs[0])):
        mean = sum(sample[c] for sample in probs) / len(probs)
        score += (mean - (c == label)) ** 2
    return score


def risk_coverage(uncertainty: Sequence[float], losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """The mean over every order of the inputs in which the uncertainty does not fall."""
    b = len(losses)
    orders = [o for o in permutations(range(b)) if all(uncertainty[i] <= uncertainty[j] for i, j in pairwise(o))]
    risks = [Fraction(0)] * b
    for order in orders:
        for k in range(1, b + 1):
            risks[k - 1] += sum(Fraction(losses[i]) for i in order[:k]) / k
    return [k / b for k in range(1, b + 1)], [float(risk / len(orders)) for risk in risks]
