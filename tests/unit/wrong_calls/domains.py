import torch

from balancekit.domains import (
    asymmetric_triplet_loss,
    normalise_features,
    reversal_strength,
    reverse_gradient,
    single_side_adversarial_loss,
)
from tests.unit.wrong_calls import Case

X, Y = torch.ones(4, 3), torch.tensor([0, 1, 2, 0])
LIVE = torch.tensor([True, False, True, False])

AWAY = X.to("meta")

CASES = [
    Case("reverse integers", lambda: reverse_gradient(Y), TypeError, ("x", "int64")),
    Case("negative strength", lambda: reverse_gradient(X, -1.0), ValueError, ("strength", "-1.0")),
    Case("strength a vector", lambda: reverse_gradient(X, torch.ones(3)), ValueError, ("strength", "()", "(3,)")),
    Case("strength as a string", lambda: reverse_gradient(X, "1"), TypeError, ("strength", "'1'")),
    Case("negative step", lambda: reversal_strength(-1, 10), ValueError, ("step", "-1")),
    Case("no steps in total", lambda: reversal_strength(0, 0), ValueError, ("total", "0")),
    Case("negative steepness", lambda: reversal_strength(1, 2, k=-10.0), ValueError, ("k", "-10.0")),
    Case(
        "logits without classes",
        lambda: single_side_adversarial_loss(X[:, 0], Y, LIVE),
        ValueError,
        ("logits", "(b, c)", "(4,)"),
    ),
    Case(
        "domain beyond the logits",
        lambda: single_side_adversarial_loss(X, Y + 1, LIVE),
        ValueError,
        ("domain", "0 to 2", "1 to 3"),
    ),
    Case(
        "domain of another length",
        lambda: single_side_adversarial_loss(X, Y[:3], LIVE),
        ValueError,
        ("domain", "(4,)", "(3,)"),
    ),
    Case(
        "live as integers",
        lambda: single_side_adversarial_loss(X, Y, LIVE.long()),
        TypeError,
        ("live", "bool", "int64"),
    ),
    Case(
        "live of another length",
        lambda: single_side_adversarial_loss(X, Y, LIVE[:3]),
        ValueError,
        ("live", "(4,)", "(3,)"),
    ),
    Case(
        "live and domain exchanged",
        lambda: single_side_adversarial_loss(X, LIVE, Y),
        TypeError,
        ("domain", "integers", "bool"),
    ),
    Case("triplets of tokens", lambda: asymmetric_triplet_loss(X[None], Y), ValueError, ("features", "(1, 4, 3)")),
    Case("too few labels", lambda: asymmetric_triplet_loss(X, Y[:2]), ValueError, ("labels", "(4,)", "(2,)")),
    Case("labels as floats", lambda: asymmetric_triplet_loss(X, Y.float()), TypeError, ("labels", "float32")),
    Case("negative margin", lambda: asymmetric_triplet_loss(X, Y, margin=-0.1), ValueError, ("margin", "-0.1")),
    Case("normalise integers", lambda: normalise_features(Y), TypeError, ("x", "int64")),
    Case("normalise a scalar", lambda: normalise_features(torch.tensor(1.0)), ValueError, ("x", "(..., d)", "()")),
    Case("normalise no width", lambda: normalise_features(X[:, :0]), ValueError, ("x", "d at least 1", "(4, 0)")),
    Case("reverse a list", lambda: reverse_gradient([1.0]), TypeError, ("x", "[1.0]")),
    Case("strength of nan", lambda: reverse_gradient(X, float("nan")), ValueError, ("strength", "nan")),
    Case("strength elsewhere", lambda: reverse_gradient(X, AWAY[0, 0]), ValueError, ("strength", "on cpu", "on meta")),
    Case("step a tensor", lambda: reversal_strength(Y[0], 10), TypeError, ("step", "int64")),
    Case("steps of nan", lambda: reversal_strength(0, float("nan")), ValueError, ("total", "nan")),
    Case("logits a list", lambda: single_side_adversarial_loss([[1.0]], Y, LIVE), TypeError, ("logits", "[[1.0]]")),
    Case(
        "domain elsewhere",
        lambda: single_side_adversarial_loss(X, Y.to("meta"), LIVE),
        ValueError,
        ("domain", "on meta"),
    ),
    Case(
        "live elsewhere", lambda: single_side_adversarial_loss(X, Y, LIVE.to("meta")), ValueError, ("live", "on meta")
    ),
    Case("live a list", lambda: single_side_adversarial_loss(X, Y, [True] * 4), TypeError, ("live", "True")),
    Case(
        "triplet labels elsewhere",
        lambda: asymmetric_triplet_loss(AWAY, Y),
        ValueError,
        ("labels", "on meta", "on cpu"),
    ),
    Case(
        "triplet labels a list", lambda: asymmetric_triplet_loss(X, [0, 1, 2, 0]), TypeError, ("labels", "[0, 1, 2, 0]")
    ),
    Case("margin of nan", lambda: asymmetric_triplet_loss(X, Y, margin=float("nan")), ValueError, ("margin", "nan")),
    Case("normalise an array", lambda: normalise_features(X.numpy()), TypeError, ("x", "ndarray")),
]
