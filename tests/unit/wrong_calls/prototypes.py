import torch

from balancekit.prototypes import (
    PrototypeBank,
    prototype_entropy,
    prototype_logits,
    prototypical_cross_entropy,
    single_side_labels,
)
from tests.unit.wrong_calls import Case

X, Y, P = torch.ones(4, 3), torch.tensor([0, 1, 1, 0]), torch.zeros(2, 3)
LIVE, DOMAIN = torch.tensor([True, False]), torch.tensor([0, 1])
BOOLS = "live: expected a bool tensor of shape (b,), found"
BANK = PrototypeBank(2, 3, decay=0.5)
BANK.update(X, Y)
BANK.accumulate(X, Y)

AWAY = X.to("meta")

CASES = [
    Case("no classes", lambda: PrototypeBank(0, 3, decay=0.5), ValueError, ("num_classes", "at least 1", "0")),
    Case("classes as a float", lambda: PrototypeBank(2.0, 3, decay=0.5), TypeError, ("num_classes", "integer", "2.0")),
    Case("no width", lambda: PrototypeBank(2, 0, decay=0.5), ValueError, ("dim", "at least 1")),
    Case("decay above one", lambda: PrototypeBank(2, 3, decay=1.5), ValueError, ("decay", "[0.0, 1.0]", "1.5")),
    Case("decay of nan", lambda: PrototypeBank(2, 3, decay=float("nan")), ValueError, ("decay", "nan")),
    Case("decay as a string", lambda: PrototypeBank(2, 3, decay="0.5"), TypeError, ("decay", "'0.5'")),
    Case("accumulate integers", lambda: BANK.accumulate(X.long(), Y), TypeError, ("features", "(b, 3)", "int64")),
    Case("accumulate tokens", lambda: BANK.accumulate(X[None], Y), ValueError, ("features", "(b, 3)", "(1, 4, 3)")),
    Case("accumulate another width", lambda: BANK.accumulate(X[:, :2], Y), ValueError, ("features", "(4, 2)")),
    Case("accumulate a list", lambda: BANK.accumulate(X, [0, 1, 1, 0]), TypeError, ("labels", "(4,)")),
    Case("too few labels", lambda: BANK.update(X, Y[:2]), ValueError, ("labels", "(4,)", "(2,)")),
    Case("labels one-hot", lambda: BANK.update(X, torch.eye(2)[Y]), ValueError, ("labels", "(4,)", "(4, 2)")),
    Case("labels as floats", lambda: BANK.update(X, Y.float()), TypeError, ("labels", "float32")),
    Case("label too high", lambda: BANK.update(X, Y + 1), ValueError, ("labels", "0 to 1", "1 to 2")),
    Case("label negative", lambda: BANK.update(X, Y - 1), ValueError, ("labels", "0 to 1", "-1 to 0")),
    Case("call with another width", lambda: BANK(torch.ones(4, 5)), ValueError, ("prototypes", "(2, 5)")),
    Case("logits of a vector", lambda: prototype_logits(X[0], P), ValueError, ("features", "(b, d)", "(3,)")),
    Case("logits to a vector", lambda: prototype_logits(X, P[0]), ValueError, ("prototypes", "(c, 3)", "(3,)")),
    Case("prototypes as integers", lambda: prototype_logits(X, P.long()), TypeError, ("prototypes", "int64")),
    Case("seen as floats", lambda: prototype_logits(X, P, seen=torch.ones(2)), TypeError, ("seen", "bool", "float32")),
    Case(
        "seen of another length",
        lambda: prototype_entropy(X, P, seen=torch.ones(3, dtype=torch.bool)),
        ValueError,
        ("seen", "(2,)", "(3,)"),
    ),
    Case(
        "label beyond the prototypes",
        lambda: prototypical_cross_entropy(X, Y + 5, P),
        ValueError,
        ("labels", "0 to 1", "5 to 6"),
    ),
    Case(
        "unknown reduction",
        lambda: prototypical_cross_entropy(X, Y, P, reduction="average"),
        ValueError,
        ("reduction", "'mean'", "'average'"),
    ),
    Case("no reduction", lambda: prototype_entropy(X, P, reduction=None), ValueError, ("reduction", "None")),
    Case("live as integers", lambda: single_side_labels(LIVE.long(), DOMAIN), TypeError, ("live", BOOLS, "int64")),
    Case("live as a column", lambda: single_side_labels(LIVE[:, None], DOMAIN), ValueError, ("live", BOOLS, "(2, 1)")),
    Case(
        "domain of another length", lambda: single_side_labels(LIVE, DOMAIN[:1]), ValueError, ("domain", "(2,)", "(1,)")
    ),
    Case("domain negative", lambda: single_side_labels(LIVE, DOMAIN - 1), ValueError, ("domain", "-1 to 0")),
    Case("domain as floats", lambda: single_side_labels(LIVE, DOMAIN.float()), TypeError, ("domain", "float32")),
    Case("classes as a bool", lambda: PrototypeBank(True, 3, decay=0.5), TypeError, ("num_classes", "True")),
    Case("accumulate elsewhere", lambda: BANK.accumulate(AWAY, Y), ValueError, ("features", "on cpu", "on meta")),
    Case("labels elsewhere", lambda: BANK.update(X, Y.to("meta")), ValueError, ("labels", "on cpu", "on meta")),
    Case("accumulate an array", lambda: BANK.accumulate(X.numpy(), Y), TypeError, ("features", "ndarray")),
    Case("prototypes elsewhere", lambda: prototype_logits(X, P.to("meta")), ValueError, ("prototypes", "on meta")),
    Case("seen elsewhere", lambda: prototype_entropy(X, P, seen=LIVE.to("meta")), ValueError, ("seen", "on meta")),
    Case("seen a list", lambda: prototype_logits(X, P, seen=[True, False]), TypeError, ("seen", "[True, False]")),
    Case(
        "loss labels elsewhere",
        lambda: prototypical_cross_entropy(X, Y.to("meta"), P),
        ValueError,
        ("labels", "on meta"),
    ),
    Case(
        "loss labels a list",
        lambda: prototypical_cross_entropy(X, [0, 1, 1, 0], P),
        TypeError,
        ("labels", "[0, 1, 1, 0]"),
    ),
    Case("domain elsewhere", lambda: single_side_labels(LIVE, DOMAIN.to("meta")), ValueError, ("domain", "on meta")),
    Case("live a list", lambda: single_side_labels([True, False], DOMAIN), TypeError, ("live", "[True, False]")),
]
