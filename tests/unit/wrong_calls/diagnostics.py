"""Wrong calls of the diagnostics, and of the picture of what they saw."""

import numpy as np
import torch
from torch import nn

from balancekit import Branches
from balancekit.diagnostics import (
    History,
    Watched,
    permutation_contributions,
    probe_accuracy,
    shapley_contributions,
    watch,
)
from balancekit.modulation import MLB, OGM
from balancekit.plotting import plot
from tests.unit.wrong_calls import Case

MODEL = nn.ModuleDict({"audio": nn.Linear(2, 3), "video": nn.Linear(2, 3)})
BRANCHES = Branches(MODEL, {"audio": "audio", "video": "video"})
OPTIMIZER = torch.optim.SGD(BRANCHES.param_groups(lr=0.1))
OGM1, MLB1 = OGM(1.0), MLB()
LOGITS, LABELS = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
FEATURES = {"audio": LOGITS, "video": LOGITS}
HISTORY = History()
HISTORY.log({"loss/audio": 1.0})
LOSS = MODEL["audio"](torch.ones(1, 2)).sum()
SEEN = Watched(None, BRANCHES, 1, 1)


def fuse(z: dict) -> torch.Tensor:
    return z["audio"] + z["video"]


def watched(*sources: object, **options: object) -> None:
    with watch(*sources, **options):
        pass


def shapley(head=fuse, features=FEATURES, labels=LABELS):
    return lambda: shapley_contributions(head, features, labels)


def mixed(head=fuse, features=FEATURES, **options):
    return lambda: permutation_contributions(head, features, **options)


def probe(*changes: tuple[int, object], **options: object):
    arguments = [LOGITS, LABELS, LOGITS, LABELS]
    for place, value in changes:
        arguments[place] = value
    return lambda: probe_accuracy(*arguments, **options)


CASES = [
    # watch
    Case("source", lambda: watched(MODEL), TypeError, ("sources", "modulators", "ModuleDict")),
    Case("source-class", lambda: watched(OGM), TypeError, ("sources", "modulators")),
    Case("two-of-a-kind", lambda: watched(OGM1, MLB1), ValueError, ("sources", "at most one of each kind", "'MLB'")),
    Case("every-zero", lambda: watched(OGM1, every=0), ValueError, ("every", "at least 1", "0")),
    Case("every-bool", lambda: watched(OGM1, every=True), TypeError, ("every", "True")),
    Case("patience-half", lambda: watched(OGM1, patience=0.5), TypeError, ("patience", "0.5")),
    Case("optimizer-alone", lambda: watched(OGM1, optimizer=OPTIMIZER), ValueError, ("branches", "optimizer", "None")),
    Case(
        "optimizer-module", lambda: watched(optimizer=MODEL, branches=BRANCHES), TypeError, ("optimizer", "ModuleDict")
    ),
    Case("branches-dict", lambda: watched(optimizer=OPTIMIZER, branches={"a": "a"}), TypeError, ("branches", "'a'")),
    Case("branches-module", lambda: watched(OGM1, branches=MODEL), TypeError, ("branches", "ModuleDict")),
    # what it yields
    Case("term-name", lambda: SEEN.term(3, LOSS), TypeError, ("name", "3")),
    Case("term-number", lambda: SEEN.term("x", 0.5), TypeError, ("loss", "0.5")),
    Case("term-vector", lambda: SEEN.term("x", LOGITS), ValueError, ("loss", "one value", "(4, 3)")),
    Case("term-integer", lambda: SEEN.term("x", LABELS[0]), TypeError, ("loss", "int64")),
    Case("applied-where", lambda: SEEN.applied("weights", {}), ValueError, ("on", "'updates'", "'weights'")),
    Case("applied-list", lambda: SEEN.applied("updates", [0.5]), TypeError, ("coefficients", "mapping", "[0.5]")),
    Case("applied-word", lambda: SEEN.applied("updates", {"audio": "x"}), TypeError, ("coefficients['audio']", "'x'")),
    Case("log-list", lambda: HISTORY.log([1.0]), TypeError, ("values", "mapping", "[1.0]")),
    Case("log-name", lambda: HISTORY.log({3: 1.0}), TypeError, ("values", "strings", "3")),
    Case(
        "log-vector", lambda: HISTORY.log({"x": 1.0, "y": LOGITS}), ValueError, ("values['y']", "one value", "(4, 3)")
    ),
    Case("log-word", lambda: HISTORY.log({"x": LOSS, "y": "1"}), ValueError, ("values['y']", "a number", "'1'")),
    Case("log-array", lambda: HISTORY.log({"x": np.ones(2)}), ValueError, ("values['x']", "ndarray")),
    Case("plot-dict", lambda: plot({"loss": 1.0}), TypeError, ("history", "a History", "1.0")),
    Case("plot-kind", lambda: plot(HISTORY, "cosine"), ValueError, ("kind", "'loss'", "'cosine'")),
    Case("plot-number", lambda: plot(HISTORY, 3), ValueError, ("kind", "3")),
    Case("plot-ax", lambda: plot(HISTORY, "loss", ax="left"), TypeError, ("ax", "'left'")),
    # contributions
    Case("shapley-head", shapley(head=None), TypeError, ("fuse", "a function", "None")),
    Case("shapley-list", shapley(features=[LOGITS]), TypeError, ("features", "mapping")),
    Case("shapley-nothing", shapley(features={}), ValueError, ("features", "at least one modality")),
    Case(
        "shapley-array",
        shapley(features={**FEATURES, "video": np.ones(4)}),
        TypeError,
        ("features['video']", "ndarray"),
    ),
    Case(
        "shapley-rows",
        shapley(features={**FEATURES, "video": LOGITS[:2]}),
        ValueError,
        ("features['video']", "rows", "(2, 3)"),
    ),
    Case(
        "shapley-no-sample", shapley(features={"audio": LOGITS[:0]}), ValueError, ("features['audio']", "at least one")
    ),
    Case("shapley-column", shapley(labels=LABELS[:, None]), ValueError, ("labels", "(4,)", "(4, 1)")),
    Case("shapley-row", shapley(labels=LABELS[None]), ValueError, ("labels", "(4,)", "(1, 4)")),
    Case("shapley-one-label", shapley(labels=LABELS[0]), ValueError, ("labels", "(4,)", "()")),
    Case("shapley-labels-list", shapley(labels=[0, 1, 2, 0]), TypeError, ("labels", "(4,)", "[0, 1, 2, 0]")),
    Case("shapley-labels-floats", shapley(labels=LABELS / 2), TypeError, ("labels", "integers", "float32")),
    Case("shapley-labels-range", shapley(labels=LABELS + 1), ValueError, ("labels", "0 to 2", "1 to 3")),
    Case("shapley-labels-elsewhere", shapley(labels=LABELS.to("meta")), ValueError, ("labels", "on cpu", "on meta")),
    Case("shapley-head-of-one-axis", shapley(head=lambda z: z["audio"][:, 0]), ValueError, ("fuse", "(4, c)", "(4,)")),
    Case("shapley-head-of-classes", shapley(head=lambda z: LABELS), TypeError, ("fuse", "floating-point", "int64")),
    Case("mixed-head", mixed(head="mean"), TypeError, ("fuse", "'mean'")),
    Case("mixed-list", mixed(features=[LOGITS]), TypeError, ("features", "mapping")),
    Case("mixed-nothing", mixed(features={}), ValueError, ("features", "at least one modality")),
    Case("mixed-rows", mixed(features={**FEATURES, "video": LOGITS[:2]}), ValueError, ("features['video']", "(2, 3)")),
    Case("mixed-seed", mixed(generator=0), TypeError, ("generator", "torch.Generator", "0")),
    Case("mixed-head-of-one-axis", mixed(head=lambda z: z["audio"][0]), ValueError, ("fuse", "(4, c)", "(3,)")),
    # probe
    Case("probe-list", probe((0, [[1.0]])), TypeError, ("train", "[[1.0]]")),
    Case("probe-integers", probe((2, LABELS[:, None])), TypeError, ("test", "int64")),
    Case("probe-tokens", probe((0, LOGITS[None])), ValueError, ("train", "(n, d)", "(1, 4, 3)")),
    Case("probe-width", probe((2, LOGITS[:, :2])), ValueError, ("test", "3 columns", "(4, 2)")),
    Case("probe-one-sample", probe((0, LOGITS[:1]), (1, LABELS[:1])), ValueError, ("train", "two samples", "(1, 3)")),
    Case("probe-no-sample", probe((2, LOGITS[:0]), (3, LABELS[:0])), ValueError, ("test", "at least one", "(0, 3)")),
    Case("probe-fewer-labels", probe((1, LABELS[:3])), ValueError, ("train_labels", "(4,)", "(3,)")),
    Case("probe-labels-bool", probe((3, LABELS > 0)), TypeError, ("test_labels", "integers", "bool")),
    Case("probe-labels-negative", probe((3, LABELS - 1)), ValueError, ("test_labels", "-1 to 1")),
    Case("probe-elsewhere", probe((2, LOGITS.to("meta"))), ValueError, ("test", "on cpu", "on meta")),
    Case("probe-l2", probe(l2=-1.0), ValueError, ("l2", "-1.0")),
    Case("probe-l2-nan", probe(l2=float("nan")), ValueError, ("l2", "nan")),
    Case("probe-iterations", probe(iterations=0), ValueError, ("iterations", "at least 1", "0")),
]
