"""Shapley's value as the mean over orders, and the equations of SMV and Data Remixing, by loops in float64."""

import math
from itertools import permutations


def marginals(value, order) -> dict[str, float]:
    """What each name adds to those before it; `value` takes a sorted tuple."""
    added = {}
    for place, name in enumerate(order):
        before, after = tuple(sorted(order[:place])), tuple(sorted(order[: place + 1]))
        added[name] = value(after) - value(before)
    return added


def mean_over(value, orders) -> dict[str, float]:
    total: dict[str, float] = {}
    for order in orders:
        for name, added in marginals(value, order).items():
            total[name] = total.get(name, 0.0) + added
    return {name: total[name] / len(orders) for name in total}


def shapley(value, names) -> dict[str, float]:
    """All M! of them."""
    return mean_over(value, list(permutations(names)))


def smv_pair(a: int, v: int, av: int, y: int) -> tuple[float, float]:
    """SMV for two modalities, as printed: φ_a = (v_a + v_av − v_v) / 2."""
    v_a, v_v, v_av = (1.0 if a == y else 0.0), (1.0 if v == y else 0.0), (2.0 if av == y else 0.0)
    return (v_a + v_av - v_v) / 2, (v_v + v_av - v_a) / 2


def smv(predictions, labels, names) -> list[list[float]]:
    """`predictions` by sorted tuples of names; v(S) = |S| where S is right."""
    rows = []
    for i, y in enumerate(labels):

        def value(subset, i=i, y=y) -> float:
            return float(len(subset)) if subset and predictions[subset][i] == y else 0.0

        phi = shapley(value, names)
        rows.append([phi[name] for name in names])
    return rows


def copies(phi: float) -> int:
    if 0.4 < phi < 1:
        return 1
    if -0.1 < phi <= 0.4:
        return 2
    return 3 if phi <= -0.1 else 0


def weights(rows) -> list[float]:
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [min(max(max(means) - mean, 0.0), 1.0) for mean in means]


def plan(table) -> list[tuple[int, list[bool]]]:
    rows = [(i, [True] * len(row)) for i, row in enumerate(table)]
    for i, row in enumerate(table):
        for m, count in enumerate(row):
            rows += count * [(i, [j == m for j in range(len(row))])]
    return rows


def kl_to_uniform(logits) -> float:
    total = sum(math.exp(v) for v in logits)
    kl = 0.0
    for v in logits:
        p = math.exp(v) / total
        kl += p * math.log(p / (1.0 / len(logits)))
    return kl


def weakest(rows) -> int:
    """One row of logits a modality."""
    divergences = [kl_to_uniform(row) for row in rows]
    return divergences.index(min(divergences))
