"""PCGrad, literally (Yu et al., NeurIPS 2020, Algorithm 1), the random order replaced by a loop over all orders."""

from itertools import permutations

import numpy as np

Vector = np.ndarray


def projected(gradient: Vector, others: list[Vector]) -> Vector:
    """One gradient after it has met the others in this order."""
    g = gradient.copy()
    for other in others:
        if g @ other < 0:
            g = g - (g @ other) / (other @ other) * other
    return g


def combined(rows: list[Vector]) -> Vector:
    """The sum of the projected gradients, the mean over all orders of the objectives."""
    objectives = [row for row in rows if row.any()]
    result = np.zeros_like(rows[0])
    for i, gradient in enumerate(objectives):
        others = objectives[:i] + objectives[i + 1 :]
        results = [projected(gradient, list(order)) for order in permutations(others)]
        result = result + sum(results) / len(results)
    return result
