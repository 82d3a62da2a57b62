"""Rates of weighted samples, one value for each row of weights: the inside of a bootstrap.

A weight is how often a sample was drawn; a resample is never materialised. Each function takes a :class:`Result` and
weights "r b" over its test samples, of which every row has a live and an attack sample, and returns "r". Weights of 1
give the rates of ``metrics``. The threshold is the development EER of the result itself: it is fixed, not resampled.
"""

import numpy as np

from .metrics import Array, eer_threshold
from .results import Result


def _rejected(result: Result) -> tuple[Array, Array]:
    """Which test samples score below the development threshold, and which are live."""
    fixed = eer_threshold(result.dev.scores, result.dev.live)
    return np.asarray(result.test.scores) < fixed, np.asarray(result.test.live, dtype=bool)


def apcer(result: Result, weights: Array) -> Array:
    """Share of all attacks that are accepted."""
    rejected, live = _rejected(result)
    return weights @ (~rejected & ~live) / (weights @ ~live)


def bpcer(result: Result, weights: Array) -> Array:
    """Share of live samples that are rejected."""
    rejected, live = _rejected(result)
    return weights @ (rejected & live) / (weights @ live)


def hter(result: Result, weights: Array) -> Array:
    """(APCER + BPCER)/2."""
    return (apcer(result, weights) + bpcer(result, weights)) / 2


def auc(result: Result, weights: Array) -> Array:
    """The weighted share of pairs in which the live sample scores higher, ties by half; one sort for all rows."""
    scores, live = np.asarray(result.test.scores, dtype=float), np.asarray(result.test.live, dtype=bool)
    order = np.flatnonzero(~live)[np.argsort(scores[~live])]
    below = np.pad(np.cumsum(weights[:, order], axis=1), ((0, 0), (1, 0)))  # weight of the k lowest attacks, "r k"
    less = np.searchsorted(scores[order], scores[live], side="left")
    most = np.searchsorted(scores[order], scores[live], side="right")
    genuine = weights[:, live]
    won = np.einsum("rb,rb->r", genuine, (below[:, less] + below[:, most]) / 2)
    return won / (genuine.sum(1) * below[:, -1])
