"""Wrong calls of modulation."""

import torch
from torch import nn

from balancekit.branches import Branches
from balancekit.modulation import (
    AGM,
    CGGM,
    MLB,
    MSLR,
    OGM,
    OPM,
    Modulation,
    discrepancy_ratio,
    drop_features,
    drop_features_released,
    freeze,
    modulate,
    multilabel_score,
    pdmp_coefficient,
    pmr_weights,
    scale_gradients,
    scale_updates,
    slice_logits,
    squared_error_score,
    true_class_score,
)
from tests.unit.wrong_calls import Case

LOGITS = {"audio": torch.zeros(2, 3), "video": torch.zeros(2, 3)}
LABELS = torch.tensor([0, 2])
MODEL = nn.ModuleDict({"audio": nn.Linear(2, 3), "video": nn.Linear(2, 3)})
BRANCHES = Branches(MODEL, {"audio": "audio", "video": "video"})
OPTIMIZER = torch.optim.SGD(BRANCHES.param_groups(lr=0.1))
LEAF = torch.zeros(2, 3, requires_grad=True)
FEATURES = {"audio": LEAF * 1}
LOSS = FEATURES["audio"].sum()
AGM2, CGGM2, MSLR2 = AGM(2), CGGM(["audio", "video"]), MSLR({"audio": 1.0, "video": 1.0})

CASES = [
    Case("scores as a dict", lambda: pmr_weights({"rgb": 1.0}), TypeError, ("scores", "(m,)", "rgb")),
    Case("scores as integers", lambda: pmr_weights(torch.tensor([1, 2])), TypeError, ("scores", "int64")),
    Case("scores of a batch", lambda: pmr_weights(torch.ones(2, 3)), ValueError, ("scores", "(m,)", "(2, 3)")),
    Case("one score", lambda: pmr_weights(torch.tensor(1.0)), ValueError, ("scores", "(m,)", "()")),
    Case("no scores", lambda: pmr_weights(torch.empty(0)), ValueError, ("scores", "at least one", "(0,)")),
    Case("ogm alpha", lambda: OGM(-1.0), ValueError, ("alpha", "[0.0")),
    Case("ogm reference", lambda: OGM(1.0, reference="max")(LOGITS, LABELS), ValueError, ("reference", "'max'")),
    Case("ogm label", lambda: OGM(1.0)(LOGITS, torch.tensor([0, 3])), ValueError, ("labels", "0 to 2")),
    Case(
        "ogm shapes",
        lambda: OGM(1.0)({**LOGITS, "video": torch.zeros(2, 4)}, LABELS),
        ValueError,
        ("logits", "one shape"),
    ),
    Case("ogm nothing", lambda: OGM(1.0)({}, LABELS), ValueError, ("logits", "at least one modality")),
    Case("mlb task", lambda: MLB(task="ranking"), ValueError, ("task", "'ranking'")),
    Case("opm base", lambda: OPM(1.5), ValueError, ("base", "1.5")),
    Case("agm count", lambda: AGM(0), ValueError, ("modalities", "at least 1")),
    Case(
        "agm modalities",
        lambda: AGM2({"audio": LOGITS["audio"]}, LABELS),
        ValueError,
        ("logits", "2 modalities"),
        (AGM2,),
    ),
    Case("cggm names", lambda: CGGM2({"audio": 0.5}), ValueError, ("accuracies", "'video'"), (CGGM2,)),
    Case("mslr names", lambda: MSLR2({"audio": 0.5}), ValueError, ("accuracies", "'video'"), (MSLR2,)),
    Case("pdmp nothing", lambda: pdmp_coefficient({}, dominant=1.0, rest=1.0), ValueError, ("performance", "modality")),
    Case(
        "no function", lambda: Modulation(true_class_score, discrepancy_ratio, 0.5), TypeError, ("coefficient", "0.5")
    ),
    Case(
        "present name",
        lambda: OGM(1.0)(LOGITS, LABELS, present={"text": torch.ones(2, dtype=torch.bool)}),
        ValueError,
        ("present", "'text'"),
    ),
    Case(
        "present shape",
        lambda: OGM(1.0)(LOGITS, LABELS, present={"audio": torch.ones(3, dtype=torch.bool)}),
        ValueError,
        ("present['audio']", "(2,)", "(3,)"),
    ),
    Case(
        "ratio present", lambda: discrepancy_ratio(torch.ones(2), present=torch.ones(2)), TypeError, ("present", "bool")
    ),
    Case(
        "ratio target",
        lambda: discrepancy_ratio(torch.ones(2), reference=torch.ones(3)),
        ValueError,
        ("reference", "(2,)"),
    ),
    Case("tags shape", lambda: multilabel_score(LOGITS, torch.ones(2, 2)), ValueError, ("labels", "(2, 3)", "(2, 2)")),
    Case("target shape", lambda: squared_error_score(LOGITS, torch.ones(2, 2)), ValueError, ("target", "(2, 3)")),
    Case("head", lambda: slice_logits(nn.ReLU(), LOGITS), TypeError, ("head", "Linear")),
    Case("widths", lambda: slice_logits(nn.Linear(5, 2), LOGITS), ValueError, ("features", "5", "[3, 3]")),
    Case("modulate name", lambda: modulate(FEATURES, {"video": 0.5}, LOSS), ValueError, ("coefficients", "'video'")),
    Case(
        "modulate size",
        lambda: modulate(FEATURES, {"audio": torch.ones(3)}, LOSS),
        ValueError,
        ("coefficients['audio']", "(2,)", "(3,)"),
    ),
    Case(
        "modulate lost",
        lambda: modulate({"audio": LEAF * 1}, {"audio": 0.5}, LOSS),
        ValueError,
        ("features", "the loss depends on", "['audio']"),
    ),
    Case("gradients name", lambda: scale_gradients(BRANCHES, {"text": 1.0}), ValueError, ("coefficients", "'text'")),
    Case(
        "no gradients",
        lambda: scale_gradients(BRANCHES, {"audio": 1.0}),
        ValueError,
        ("branches", "['audio']"),
        (MODEL,),
    ),
    Case("freeze name", lambda: freeze(BRANCHES, ["text"]), ValueError, ("names", "'text'")),
    Case("updates name", lambda: scale_updates(OPTIMIZER, {"text": 1.0}), ValueError, ("coefficients", "param_groups")),
    Case(
        "updates value",
        lambda: scale_updates(OPTIMIZER, {"audio": torch.ones(2)}),
        ValueError,
        ("coefficients['audio']",),
    ),
    Case("no optimizer", lambda: scale_updates(MODEL, {"audio": 1.0}), TypeError, ("optimizer", "Optimizer")),
    Case("drop name", lambda: drop_features(FEATURES, {"text": 0.5}), ValueError, ("probabilities", "'text'")),
    Case(
        "drop labels",
        lambda: drop_features_released(FEATURES, torch.arange(9), {"audio": 0.5}),
        ValueError,
        ("labels", "rows", "9"),
    ),
    Case("drop share", lambda: drop_features(FEATURES, {"audio": 0.5}, share=2.0), ValueError, ("share", "2.0")),
]
