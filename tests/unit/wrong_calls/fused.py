"""Wrong calls of the fused functions: the messages are those of the plain ones."""

import torch

from balancekit import fused
from tests.unit.wrong_calls import Case

X, Y, P, NO = torch.ones(4, 3), torch.tensor([0, 1, 1, 0]), torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.long)

CASES = [
    Case("confidence-p", lambda: fused.dropout_confidence(X, 2), ValueError, ("p", "[0.0, 1.0)", "2")),
    Case(
        "confidence-seed",
        lambda: fused.dropout_confidence(X, method="sampled", generator=0),
        TypeError,
        ("generator", "0"),
    ),
    Case("std-integers", lambda: fused.dropout_std(NO), TypeError, ("x", "int64")),
    Case("moments-weight", lambda: fused.linear_dropout_moments(X, P.T), ValueError, ("weight", "(3, 3)", "(3, 2)")),
    Case("expected-integers", lambda: fused.expected_entropy(NO), TypeError, ("probs", "int64")),
    Case(
        "mutual-one-sample",
        lambda: fused.mutual_information(X[:1], corrected=True),
        ValueError,
        ("probs", "two samples"),
    ),
    Case("predictive-axes", lambda: fused.predictive_entropy(X[0]), ValueError, ("probs", "s b c", "(3,)")),
    Case("logits-width", lambda: fused.prototype_logits(X, P[:, :2]), ValueError, ("prototypes", "(2, 3)", "(2, 2)")),
    Case(
        "entropy-reduction",
        lambda: fused.prototype_entropy(X, P, reduction="average"),
        ValueError,
        ("reduction", "'average'"),
    ),
    Case(
        "cross-entropy-labels",
        lambda: fused.prototypical_cross_entropy(X, Y[:2], P),
        ValueError,
        ("labels", "(4,)", "(2,)"),
    ),
]
