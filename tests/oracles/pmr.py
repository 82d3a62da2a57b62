"""PMR's coefficients (arXiv 2211.07089, Eq. 8, 11 and 13), as printed for two modalities and by loops for more."""

import math


def clip(x: float) -> float:
    return min(max(x, 0.0), 1.0)


def two_modalities(s0: float, s1: float) -> tuple[list[float], list[float]]:
    """Eq. 11 for β and γ; Eq. 10 puts β and γ on PCE of 0 and 1, Eq. 13 puts γ and β on the entropy of 0 and 1."""
    ratio = s0 / s1
    if ratio < 1:
        beta, gamma = clip(1 / ratio - 1), 0.0
    else:
        beta, gamma = 0.0, clip(ratio - 1)
    return [beta, gamma], [gamma, beta]


def many_modalities(scores: list[float]) -> tuple[list[float], list[float]]:
    pce = [clip(max(scores) / s - 1) for s in scores]
    per = [clip(s / min(scores) - 1) for s in scores]
    return pce, per


def softmax_of_distances(z: list[float], prototypes: list[list[float]]) -> list[float]:
    """Eq. 7."""
    e = [math.exp(-math.dist(z, c)) for c in prototypes]
    return [x / sum(e) for x in e]


def loss(
    features: list[list[list[float]]], labels: list[int], prototypes: list[list[list[float]]], alpha: float, mu: float
) -> float:
    """Eq. 8, 10, 11 and 13 for two modalities, without the fused cross-entropy; features by modality and sample."""
    p = [[softmax_of_distances(z, c) for z in zs] for zs, c in zip(features, prototypes, strict=True)]
    scores = [sum(row[y] for row, y in zip(rows, labels, strict=True)) for rows in p]
    (beta, gamma), _ = two_modalities(*scores)
    n = len(labels)
    pce = [sum(-math.log(row[y]) for row, y in zip(rows, labels, strict=True)) / n for rows in p]
    entropy = [sum(-sum(x * math.log(x) for x in row) for row in rows) / n for rows in p]
    return alpha * (beta * pce[0] + gamma * pce[1]) - mu * gamma * entropy[0] - mu * beta * entropy[1]
