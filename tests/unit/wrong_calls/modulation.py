"""Wrong calls of modulation."""

import numpy as np
import torch
from torch import nn

from balancekit.branches import Branches
from balancekit.modulation import (
    AGM,
    ARL,
    CGGM,
    MLB,
    MSLR,
    OGM,
    OPM,
    SMP,
    EpistemicModulation,
    Modulation,
    agm_coefficient,
    agm_ratio,
    arl_coefficient,
    base_rates,
    behind_coefficient,
    cggm_coefficient,
    confidence_score,
    correct_score,
    cross_entropy_score,
    discrepancy_ratio,
    drop_features,
    drop_features_released,
    entropy_score,
    freeze,
    listening,
    miles_coefficient,
    modulate,
    multilabel_score,
    ogm_coefficient,
    opm_probability,
    pdmp_coefficient,
    pmr_weights,
    regression_score,
    scale_gradients,
    scale_updates,
    shapley_logits,
    shapley_values,
    slice_logits,
    squared_error_score,
    suppress_best_coefficient,
    true_class_score,
    two_sided_coefficient,
    utilisation,
    zero_out_logits,
)
from tests.unit.wrong_calls import Case

LOGITS = {"audio": torch.zeros(2, 3), "video": torch.zeros(2, 3)}
LABELS = torch.tensor([0, 2])
MODEL = nn.ModuleDict({"audio": nn.Linear(2, 3), "video": nn.Linear(2, 3)})
BRANCHES = Branches(MODEL, {"audio": "audio", "video": "video"})
OPTIMIZER = torch.optim.SGD(BRANCHES.param_groups(lr=0.1))
UNNAMED = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))]}], lr=0.1)
UNNAMED.add_param_group({"params": [nn.Parameter(torch.ones(1))], "name": "a"})
LEAF = torch.zeros(2, 3, requires_grad=True)
FEATURES = {"audio": LEAF * 1}
LOSS = FEATURES["audio"].sum()
HEAD = nn.Linear(5, 2)
AGM2, CGGM2, MSLR2 = AGM(2), CGGM(["audio", "video"]), MSLR({"audio": 1.0, "video": 1.0})

OGM1, ARL1, EPISTEMIC, NAN = OGM(1.0), ARL(), EpistemicModulation(), float("nan")
HALF, HERE = torch.full((2,), 0.5), torch.ones(2, dtype=torch.bool)
AWAY = torch.zeros(2, 3, device="meta")  # stands for another device
LEARNT = nn.ModuleDict({"audio": nn.Linear(2, 1), "video": nn.Linear(2, 1)})
LIVE = Branches(LEARNT, {"audio": "audio", "video": "video"})
(LEARNT["audio"](torch.ones(1, 2)) + LEARNT["video"](torch.ones(1, 2))).sum().backward()


def right(subset: object) -> torch.Tensor:
    return torch.ones(2)


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
    ),
    Case("cggm names", lambda: CGGM2({"audio": 0.5}), ValueError, ("accuracies", "'video'")),
    Case("mslr names", lambda: MSLR2({"audio": 0.5}), ValueError, ("accuracies", "'video'")),
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
    Case("widths", lambda: slice_logits(HEAD, LOGITS), ValueError, ("features", "5", "[3, 3]")),
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
    Case("shapley value tensor", lambda: shapley_values(torch.zeros(()), ["a"]), TypeError, ("value", "callable")),
    Case(
        "shapley value number",
        lambda: shapley_values(lambda s: 1.0, ["a"]),
        TypeError,
        ("value", "floating-point", "1.0"),
    ),
    Case(
        "shapley value integers",
        lambda: shapley_values(lambda s: torch.ones(2, dtype=torch.int64), ["a"]),
        TypeError,
        ("value", "int64"),
    ),
    Case(
        "shapley value shapes",
        lambda: shapley_values(lambda s: torch.ones(len(s)), ["a", "b"]),
        ValueError,
        ("value", "(2,)", "(1,)"),
    ),
    Case(
        "shapley names string",
        lambda: shapley_values(lambda s: torch.ones(2), "ab"),
        TypeError,
        ("modalities", "list", "'ab'"),
    ),
    Case(
        "shapley names numbers",
        lambda: shapley_values(lambda s: torch.ones(2), [0, 1]),
        TypeError,
        ("modalities", "names", "[0, 1]"),
    ),
    Case(
        "shapley no names",
        lambda: shapley_values(lambda s: torch.ones(2), []),
        ValueError,
        ("modalities", "at least one", "[]"),
    ),
    Case(
        "shapley names twice",
        lambda: shapley_values(lambda s: torch.ones(2), ["a", "a"]),
        ValueError,
        ("modalities", "differ", "'a'"),
    ),
    Case(
        "shapley many names",
        lambda: shapley_values(lambda s: torch.ones(2), list("abcdefghijk")),
        ValueError,
        ("modalities", "10", "`permutations`"),
    ),
    Case(
        "shapley empty string",
        lambda: shapley_values(lambda s: torch.ones(2), ["a"], empty="0"),
        TypeError,
        ("empty", "number", "'0'"),
    ),
    Case(
        "shapley empty shape",
        lambda: shapley_values(lambda s: torch.ones(2), ["a"], empty=torch.ones(3)),
        ValueError,
        ("empty", "(2,)", "(3,)"),
    ),
    Case(
        "shapley empty integer",
        lambda: shapley_values(lambda s: torch.ones(2), ["a"], empty=torch.ones((), dtype=torch.int64)),
        TypeError,
        ("empty", "floating-point", "int64"),
    ),
    Case(
        "shapley permutations zero",
        lambda: shapley_values(lambda s: torch.ones(2), ["a"], permutations=0),
        ValueError,
        ("permutations", "1", "0"),
    ),
    Case(
        "shapley permutations half",
        lambda: shapley_values(lambda s: torch.ones(2), ["a"], permutations=1.5),
        TypeError,
        ("permutations", "1.5"),
    ),
    Case(
        "shapley seed", lambda: shapley_values(right, ["a"], permutations=2, generator=0), TypeError, ("generator", "0")
    ),
    # methods
    Case("ogm without alpha", lambda: OGM(None), TypeError, ("alpha", "None")),
    Case("ogm alpha of nan", lambda: OGM(NAN), ValueError, ("alpha", "nan")),
    Case("ogm reference at once", lambda: OGM(1.0, reference="max"), ValueError, ("reference", "'max'")),
    Case("opm reference at once", lambda: OPM(reference=None), ValueError, ("reference", "None")),
    Case("opm strength", lambda: OPM(strength=-1.0), ValueError, ("strength", "-1.0")),
    Case("mlb ceiling", lambda: MLB(ceiling=0.5), ValueError, ("ceiling", "0.5")),
    Case("arl temperature", lambda: ARL(-8.0), ValueError, ("temperature", "-8.0")),
    Case("smp score", lambda: SMP("best"), TypeError, ("score", "'best'")),
    Case("epistemic rate", lambda: EpistemicModulation(0.0), ValueError, ("rate", "0.0")),
    Case("agm cap", lambda: AGM(2, cap=-1.0), ValueError, ("cap", "-1.0")),
    Case(
        "logits as a tensor",
        lambda: OGM1(LOGITS["audio"], LABELS),
        TypeError,
        ("logits", "modalities as keys", "(2, 3)"),
    ),
    Case("logits as a list", lambda: ARL1([LOGITS["audio"]]), TypeError, ("logits", "modalities as keys")),
    Case(
        "logits as integers", lambda: OGM1({"audio": LABELS[:, None]}, LABELS), TypeError, ("logits['audio']", "int64")
    ),
    Case(
        "logits as an array",
        lambda: AGM2({**LOGITS, "video": np.ones((2, 3))}, LABELS),
        TypeError,
        ("logits['video']", "ndarray"),
    ),
    Case(
        "logits elsewhere",
        lambda: OGM1({**LOGITS, "video": AWAY}, LABELS),
        ValueError,
        ("logits['video']", "on cpu", "on meta"),
    ),
    Case("labels elsewhere", lambda: OGM1(LOGITS, LABELS.to("meta")), ValueError, ("labels", "on cpu", "on meta")),
    Case("no labels", lambda: OGM1(LOGITS), TypeError, ("labels", "(2,)", "None")),
    Case("agm label", lambda: AGM2(LOGITS, LABELS + 1), ValueError, ("labels", "0 to 2", "1 to 3")),
    Case(
        "present as a tensor",
        lambda: OGM1(LOGITS, LABELS, present=HERE),
        TypeError,
        ("present", "modalities as keys", "bool"),
    ),
    Case(
        "present as integers",
        lambda: OGM1(LOGITS, LABELS, present={"audio": LABELS}),
        ValueError,
        ("present['audio']", "bool", "int64"),
    ),
    Case(
        "present elsewhere",
        lambda: ARL1(LOGITS, present={"audio": HERE.to("meta")}),
        ValueError,
        ("present['audio']", "on meta"),
    ),
    Case("uncertainty of tokens", lambda: EPISTEMIC(LOGITS), ValueError, ("uncertainty['audio']", '"b"', "(2, 3)")),
    Case("step hook", lambda: OGM1.register_step_hook("print"), TypeError, ("hook", "a function", "'print'")),
    Case("cggm names as a word", lambda: CGGM("av"), TypeError, ("modalities", "a list", "'av'")),
    Case("cggm names twice", lambda: CGGM(["a", "a"]), ValueError, ("modalities", "differ", "['a', 'a']")),
    Case("cggm no names", lambda: CGGM([]), ValueError, ("modalities", "at least one", "[]")),
    Case("cggm scale", lambda: CGGM(["a"], 0.0), ValueError, ("scale", "0.0")),
    Case("cggm list", lambda: CGGM2([0.5, 0.4]), TypeError, ("accuracies", "modalities as keys", "[0.5, 0.4]")),
    Case("cggm word", lambda: CGGM2({"audio": 0.5, "video": "0.4"}), ValueError, ("accuracies['video']", "'0.4'")),
    Case(
        "cggm each sample",
        lambda: CGGM2({"audio": 0.5, "video": HALF}),
        ValueError,
        ("accuracies['video']", "()", "(2,)"),
    ),
    Case("mslr list", lambda: MSLR([1.0]), TypeError, ("factors", "[1.0]")),
    Case("mslr nothing", lambda: MSLR({}), ValueError, ("factors", "at least one")),
    Case("mslr factor", lambda: MSLR({"audio": -1.0}), ValueError, ("factors['audio']", "-1.0")),
    Case("mslr window", lambda: MSLR({"audio": 1.0}, window=0), ValueError, ("window", "0")),
    Case("mslr none", lambda: MSLR2({"audio": 0.5, "video": None}), ValueError, ("accuracies['video']", "None")),
    Case("mslr bool", lambda: MSLR2({"audio": 0.5, "video": True}), ValueError, ("accuracies['video']", "True")),
    # coefficients and ratios
    Case("ratio as a list", lambda: ogm_coefficient([1.0], 0.8), TypeError, ("ratio", "[1.0]")),
    Case("ratio as integers", lambda: ogm_coefficient(LABELS, 0.8), TypeError, ("ratio", "int64")),
    Case("ratio as an array", lambda: behind_coefficient(np.ones(2)), TypeError, ("ratio", "ndarray")),
    Case("ratio of nobody", lambda: suppress_best_coefficient(HALF[:0]), ValueError, ("ratio", "at least one", "(0,)")),
    Case("ratio of a scalar", lambda: suppress_best_coefficient(HALF[0]), ValueError, ("ratio", "at least one", "()")),
    Case("ogm alpha negative", lambda: ogm_coefficient(HALF, -0.1), ValueError, ("alpha", "-0.1")),
    Case("ogm alpha a tensor", lambda: ogm_coefficient(HALF, HALF), TypeError, ("alpha", "float32")),
    Case("two-sided ratio", lambda: two_sided_coefficient(None, 1.0), TypeError, ("ratio", "None")),
    Case("two-sided alpha", lambda: two_sided_coefficient(HALF, NAN), ValueError, ("alpha", "nan")),
    Case("two-sided ceiling", lambda: two_sided_coefficient(HALF, 1.0, ceiling=0.0), ValueError, ("ceiling", "0.0")),
    Case("opm ratio", lambda: opm_probability("a", 0.5, 0.5), TypeError, ("ratio", "'a'")),
    Case("opm base above one", lambda: opm_probability(HALF, 1.5, 0.5), ValueError, ("base", "[0.0, 1.0]", "1.5")),
    Case("opm strength negative", lambda: opm_probability(HALF, 0.5, -1), ValueError, ("strength", "-1")),
    Case("agm ratio", lambda: agm_coefficient(LABELS, 1.0), TypeError, ("ratio", "int64")),
    Case("agm alpha", lambda: agm_coefficient(HALF, True), TypeError, ("alpha", "True")),
    Case("agm cap negative", lambda: agm_coefficient(HALF, 1.0, cap=-1.0), ValueError, ("cap", "-1.0")),
    Case("agm errors", lambda: agm_ratio(HALF[None], present=HERE), ValueError, ("errors", "(m,)", "(1, 2)")),
    Case("agm present", lambda: agm_ratio(HALF, present=None), TypeError, ("present", "bool", "None")),
    Case("agm present shape", lambda: agm_ratio(HALF, present=HERE[:1]), ValueError, ("present", "(2,)", "(1,)")),
    Case("arl entropy", lambda: arl_coefficient([0.5], HALF), TypeError, ("entropy", "[0.5]")),
    Case("arl loudness", lambda: arl_coefficient(HALF, HALF[:1]), ValueError, ("loudness", "(2,)", "(1,)")),
    Case("arl loudness elsewhere", lambda: arl_coefficient(HALF, HALF.to("meta")), ValueError, ("loudness", "on meta")),
    Case("arl temperature nan", lambda: arl_coefficient(HALF, HALF, NAN), ValueError, ("temperature", "nan")),
    Case("arl present", lambda: arl_coefficient(HALF, HALF, present=LABELS), TypeError, ("present", "bool", "int64")),
    Case("cggm gains", lambda: cggm_coefficient(HALF[None]), ValueError, ("gains", "(m,)", "(1, 2)")),
    Case("cggm no gains", lambda: cggm_coefficient(HALF[:0]), ValueError, ("gains", "at least one", "(0,)")),
    Case("cggm gains scale", lambda: cggm_coefficient(HALF, -1.3), ValueError, ("scale", "-1.3")),
    Case("ratio scores", lambda: discrepancy_ratio({"a": 1.0}), TypeError, ("scores", "1.0")),
    Case("ratio reference word", lambda: discrepancy_ratio(HALF, reference="max"), ValueError, ("reference", "'max'")),
    Case(
        "ratio reference array",
        lambda: discrepancy_ratio(HALF, reference=np.ones(2)),
        TypeError,
        ("reference", "ndarray"),
    ),
    Case(
        "ratio reference integers", lambda: discrepancy_ratio(HALF, reference=LABELS), TypeError, ("reference", "int64")
    ),
    Case(
        "ratio elsewhere", lambda: discrepancy_ratio(HALF, present=HERE.to("meta")), ValueError, ("present", "on meta")
    ),
    Case(
        "ratio present list",
        lambda: discrepancy_ratio(HALF, present=[True, True]),
        TypeError,
        ("present", "[True, True]"),
    ),
    Case("pdmp list", lambda: pdmp_coefficient([0.5], dominant=1.0, rest=1.0), TypeError, ("performance", "[0.5]")),
    Case(
        "pdmp none",
        lambda: pdmp_coefficient({"a": None}, dominant=1.0, rest=1.0),
        ValueError,
        ("performance['a']", "None"),
    ),
    Case(
        "pdmp dominant", lambda: pdmp_coefficient({"a": 0.5}, dominant=-1.0, rest=1.0), ValueError, ("dominant", "-1.0")
    ),
    Case("pdmp rest", lambda: pdmp_coefficient({"a": 0.5}, dominant=1.0, rest=NAN), ValueError, ("rest", "nan")),
    Case(
        "pdmp elsewhere",
        lambda: pdmp_coefficient({"a": HALF[0], "b": HALF[0].to("meta")}, dominant=1.0, rest=1.0),
        ValueError,
        ("performance['b']", "on cpu", "on meta"),
    ),
    Case("miles list", lambda: miles_coefficient([0.5]), TypeError, ("used", "[0.5]")),
    Case("miles nothing", lambda: miles_coefficient({}), ValueError, ("used", "at least one")),
    Case("miles word", lambda: miles_coefficient({"a": "0.5"}), ValueError, ("used['a']", "'0.5'")),
    Case("miles threshold", lambda: miles_coefficient({"a": 0.5}, threshold=-1.0), ValueError, ("threshold", "-1.0")),
    Case("miles factor", lambda: miles_coefficient({"a": 0.5}, factor=NAN), ValueError, ("factor", "nan")),
    Case("utilisation zero", lambda: utilisation(0.0, {"a": 0.5}), ValueError, ("accuracy", "(0.0, inf]", "0.0")),
    Case("utilisation list", lambda: utilisation([0.5], {"a": 0.5}), TypeError, ("accuracy", "[0.5]")),
    Case("utilisation integer", lambda: utilisation(LABELS[0], {"a": 0.5}), TypeError, ("accuracy", "int64")),
    Case("utilisation without", lambda: utilisation(0.5, [0.5]), TypeError, ("without", "[0.5]")),
    Case("utilisation batch", lambda: utilisation(0.5, {"a": HALF}), ValueError, ("without['a']", "()", "(2,)")),
    # scores
    *(
        case
        for score in (true_class_score, cross_entropy_score, correct_score)
        for case in (
            Case(
                f"{score.__name__} list", lambda f=score: f([AWAY], LABELS), TypeError, ("logits", "modalities as keys")
            ),
            Case(f"{score.__name__} nothing", lambda f=score: f({}, LABELS), ValueError, ("logits", "at least one")),
            Case(
                f"{score.__name__} labels",
                lambda f=score: f(LOGITS, LABELS[:1]),
                ValueError,
                ("labels", "(2,)", "(1,)"),
            ),
            Case(f"{score.__name__} bools", lambda f=score: f(LOGITS, LABELS > 0), TypeError, ("labels", "bool")),
            Case(
                f"{score.__name__} away",
                lambda f=score: f(LOGITS, LABELS.to("meta")),
                ValueError,
                ("labels", "on meta"),
            ),
        )
    ),
    Case("entropy of nothing", lambda: entropy_score({}), ValueError, ("logits", "at least one")),
    Case("entropy of a vector", lambda: entropy_score({"a": HALF}), ValueError, ("logits['a']", '"b c"', "(2,)")),
    Case(
        "tags as a list",
        lambda: multilabel_score(LOGITS, [[1, 0, 1]] * 2),
        ValueError,
        ("labels", "(2, 3)", "[[1, 0, 1]"),
    ),
    Case("tags elsewhere", lambda: multilabel_score(LOGITS, AWAY), ValueError, ("labels", "on cpu", "on meta")),
    Case("regression list", lambda: regression_score([AWAY], AWAY), TypeError, ("predictions", "modalities as keys")),
    Case(
        "regression integers",
        lambda: regression_score({"a": LABELS[:, None]}, AWAY),
        TypeError,
        ("predictions['a']", "int64"),
    ),
    Case(
        "regression scale", lambda: regression_score(LOGITS, LOGITS["audio"], scale=0.0), ValueError, ("scale", "0.0")
    ),
    Case("squared nothing", lambda: squared_error_score({}, AWAY), ValueError, ("predictions", "at least one")),
    Case("squared target", lambda: squared_error_score(LOGITS, LABELS), TypeError, ("target", "(2, 3)", "int64")),
    Case("squared elsewhere", lambda: squared_error_score(LOGITS, AWAY), ValueError, ("target", "on cpu", "on meta")),
    Case("confidence list", lambda: confidence_score([HALF]), TypeError, ("uncertainty", "modalities as keys")),
    Case("confidence nothing", lambda: confidence_score({}), ValueError, ("uncertainty", "at least one")),
    Case(
        "confidence lengths",
        lambda: confidence_score({"a": HALF, "b": HALF[:1]}),
        ValueError,
        ("uncertainty", "{'a': 2, 'b': 1}"),
    ),
    Case(
        "confidence elsewhere",
        lambda: confidence_score({"a": HALF, "b": HALF.to("meta")}),
        ValueError,
        ("uncertainty['b']", "on meta"),
    ),
    Case("confidence rate", lambda: confidence_score({"a": HALF}, rate=-1.0), ValueError, ("rate", "-1.0")),
    # logits
    Case("slice a list", lambda: slice_logits(HEAD, [AWAY]), TypeError, ("features", "modalities as keys")),
    Case("slice nothing", lambda: slice_logits(HEAD, {}), ValueError, ("features", "at least one")),
    Case(
        "slice elsewhere",
        lambda: slice_logits(HEAD, {"a": torch.zeros(2, 5, device="meta")}),
        ValueError,
        ("features['a']", "on meta"),
    ),
    Case("zero-out head", lambda: zero_out_logits(None, LOGITS), TypeError, ("fuse", "a function", "None")),
    Case("zero-out list", lambda: zero_out_logits(right, [AWAY]), TypeError, ("features", "modalities as keys")),
    Case(
        "zero-out array",
        lambda: zero_out_logits(right, {"a": np.ones(2)}),
        TypeError,
        ("features['a']", "a tensor", "ndarray"),
    ),
    Case("shapley head", lambda: shapley_logits("mean", LOGITS), TypeError, ("fuse", "'mean'")),
    Case("shapley features", lambda: shapley_logits(right, {}), ValueError, ("features", "at least one")),
    Case("shapley integers", lambda: shapley_logits(lambda z: LABELS, LOGITS), TypeError, ("value", "int64")),
    # actuators
    Case("modulate loss", lambda: modulate(FEATURES, {"audio": 0.5}, 1.0), TypeError, ("loss", "1.0")),
    Case(
        "modulate vector",
        lambda: modulate(FEATURES, {"audio": 0.5}, FEATURES["audio"]),
        ValueError,
        ("loss", "one value", "(2, 3)"),
    ),
    Case(
        "modulate list", lambda: modulate([LEAF], {"audio": 0.5}, LOSS), TypeError, ("features", "modalities as keys")
    ),
    Case(
        "modulate array",
        lambda: modulate({"audio": np.ones(2)}, {"audio": 0.5}, LOSS),
        TypeError,
        ("features['audio']", "ndarray"),
    ),
    Case("modulate coefficients", lambda: modulate(FEATURES, 0.5, LOSS), TypeError, ("coefficients", "0.5")),
    Case(
        "modulate word",
        lambda: modulate(FEATURES, {"audio": "0.5"}, LOSS),
        ValueError,
        ("coefficients['audio']", "'0.5'"),
    ),
    Case(
        "modulate complex",
        lambda: modulate(FEATURES, {"audio": torch.tensor(1j)}, LOSS),
        ValueError,
        ("coefficients['audio']", "complex64"),
    ),
    Case(
        "gradients of a module", lambda: scale_gradients(nn.ReLU, {"audio": 0.5}), TypeError, ("branches", "a Branches")
    ),
    Case("gradients list", lambda: scale_gradients(LIVE, [0.5]), TypeError, ("coefficients", "[0.5]")),
    Case(
        "gradients word",
        lambda: scale_gradients(LIVE, {"audio": 0.5, "video": "x"}),
        ValueError,
        ("coefficients['video']", "'x'"),
    ),
    Case(
        "gradients each sample",
        lambda: scale_gradients(LIVE, {"audio": HALF}),
        ValueError,
        ("coefficients['audio']", "(2,)"),
    ),
    Case(
        "gradients complex",
        lambda: scale_gradients(LIVE, {"audio": 0.5, "video": torch.tensor(1j)}),
        ValueError,
        ("coefficients['video']", "complex64"),
    ),
    Case(
        "gradients elsewhere",
        lambda: scale_gradients(LIVE, {"audio": 0.5, "video": HALF[0].to("meta")}),
        ValueError,
        ("coefficients['video']", "on cpu", "on meta"),
    ),
    Case(
        "gradients seed",
        lambda: scale_gradients(LIVE, {"audio": 0.5}, noise=True, generator=0),
        TypeError,
        ("generator", "0"),
    ),
    Case("freeze a module", lambda: freeze(MODEL, ["audio"]), TypeError, ("branches", "a Branches")),
    Case("freeze a word", lambda: freeze(LIVE, "audio"), TypeError, ("names", "a list", "'audio'")),
    Case("freeze nobody", lambda: freeze(LIVE, None), TypeError, ("names", "None")),
    Case("freeze each sample", lambda: freeze(LIVE, {"audio": HALF}), ValueError, ("names['audio']", "()", "(2,)")),
    Case("freeze one unknown", lambda: freeze(LIVE, ["audio", "text"]), ValueError, ("names", "['text']")),
    Case("updates list", lambda: scale_updates(OPTIMIZER, [0.5]), TypeError, ("coefficients", "[0.5]")),
    Case(
        "updates word", lambda: scale_updates(OPTIMIZER, {"audio": "x"}), ValueError, ("coefficients['audio']", "'x'")
    ),
    Case(
        "updates bool", lambda: scale_updates(OPTIMIZER, {"audio": True}), ValueError, ("coefficients['audio']", "True")
    ),
    Case("rates of a module", lambda: base_rates(MODEL), TypeError, ("optimizer", "Optimizer", "ModuleDict")),
    Case("rates of a class", lambda: base_rates(torch.optim.SGD), TypeError, ("optimizer", "Optimizer")),
    Case("listen to nothing", lambda: listening(None).__enter__(), TypeError, ("listener", "a function", "None")),
    Case("drop a list", lambda: drop_features([LEAF], {}), TypeError, ("features", "modalities as keys")),
    Case("drop nothing", lambda: drop_features({}, {}), ValueError, ("features", "at least one")),
    Case("drop integers", lambda: drop_features({"audio": LABELS}, {}), TypeError, ("features['audio']", "int64")),
    Case(
        "drop rows",
        lambda: drop_features({**LOGITS, "video": torch.zeros(3, 3)}, {}),
        ValueError,
        ("features['video']", "2 samples", "(3, 3)"),
    ),
    Case(
        "drop elsewhere",
        lambda: drop_features({**LOGITS, "video": AWAY}, {}),
        ValueError,
        ("features['video']", "on meta"),
    ),
    Case(
        "drop probability", lambda: drop_features(LOGITS, {"audio": 1.5}), ValueError, ("probabilities['audio']", "1.5")
    ),
    Case(
        "drop each sample",
        lambda: drop_features(LOGITS, {"audio": HALF}),
        ValueError,
        ("probabilities['audio']", "(2,)"),
    ),
    Case("drop seed", lambda: drop_features(LOGITS, {"audio": 0.5}, generator=0), TypeError, ("generator", "0")),
    Case(
        "drop labels list",
        lambda: drop_features_released(LOGITS, [0, 2], {"audio": 0.5}),
        TypeError,
        ("labels", "[0, 2]"),
    ),
    Case(
        "drop labels none", lambda: drop_features_released(LOGITS, None, {"audio": 0.5}), TypeError, ("labels", "None")
    ),
    Case(
        "drop labels elsewhere",
        lambda: drop_features_released(LOGITS, LABELS.to("meta"), {}),
        ValueError,
        ("labels", "on meta"),
    ),
    Case(
        "drop released share",
        lambda: drop_features_released(LOGITS, LABELS, {}, share=NAN),
        ValueError,
        ("share", "nan"),
    ),
    # at the bounds, and in the words of the shape
    *(
        Case(
            f"{name} table {shape}",
            lambda f=f, shape=shape: f(torch.ones(shape)),
            ValueError,
            (argument, "at least one"),
        )
        for name, argument, f in (
            ("ogm", "ratio", lambda z: ogm_coefficient(z, 1.0)),
            ("opm", "ratio", lambda z: opm_probability(z, 0.5, 0.5)),
            ("mlb", "ratio", lambda z: two_sided_coefficient(z, 1.0)),
            ("agm", "ratio", lambda z: agm_coefficient(z, 1.0)),
            ("smp", "ratio", suppress_best_coefficient),
            ("behind", "ratio", behind_coefficient),
            ("discrepancy", "scores", discrepancy_ratio),
        )
        for shape in ((), (0,), (2, 0))
    ),
    *(
        Case(f"{name} below {argument}", call, ValueError, (argument, f"a number in {interval}, found"))
        for name, argument, interval, call in (
            ("ogm coefficient", "alpha", "[0.0, inf]", lambda: ogm_coefficient(HALF, -0.01)),
            ("ogm", "alpha", "[0.0, inf]", lambda: OGM(-0.01)),
            ("two-sided", "alpha", "[0.0, inf]", lambda: two_sided_coefficient(HALF, -0.01)),
            ("two-sided", "ceiling", "[1.0, inf]", lambda: two_sided_coefficient(HALF, 1.0, ceiling=0.99)),
            ("mlb", "alpha", "[0.0, inf]", lambda: MLB(-0.01)),
            ("mlb", "ceiling", "[1.0, inf]", lambda: MLB(ceiling=0.99)),
            ("agm coefficient", "alpha", "[0.0, inf]", lambda: agm_coefficient(HALF, -0.01)),
            ("agm coefficient", "cap", "[0.0, inf]", lambda: agm_coefficient(HALF, 1.0, cap=-0.01)),
            ("agm", "alpha", "[0.0, inf]", lambda: AGM(2, -0.01)),
            ("agm", "cap", "[0.0, inf]", lambda: AGM(2, cap=-0.01)),
            ("arl coefficient", "temperature", "[0.0, inf]", lambda: arl_coefficient(HALF, HALF, -0.01)),
            ("arl", "temperature", "[0.0, inf]", lambda: ARL(-0.01)),
            ("cggm coefficient", "scale", "(0.0, inf]", lambda: cggm_coefficient(HALF, 0.0)),
            ("cggm", "scale", "(0.0, inf]", lambda: CGGM(["audio"], 0.0)),
            ("epistemic", "rate", "(0.0, inf]", lambda: EpistemicModulation(0.0)),
            ("confidence", "rate", "(0.0, inf]", lambda: confidence_score({"a": HALF}, rate=0.0)),
            ("regression", "scale", "(0.0, inf]", lambda: regression_score(LOGITS, LOGITS["audio"], scale=0.0)),
            ("miles", "threshold", "[0.0, inf]", lambda: miles_coefficient({"a": 0.5}, threshold=-0.01)),
            ("miles", "factor", "[0.0, inf]", lambda: miles_coefficient({"a": 0.5}, factor=-0.01)),
            ("utilisation", "accuracy", "(0.0, inf]", lambda: utilisation(0.0, {"a": 0.5})),
            ("mslr", "factors['a']", "[0.0, inf]", lambda: MSLR({"a": -0.01})),
            ("pdmp", "dominant", "[0.0, inf]", lambda: pdmp_coefficient({"a": 0.5}, dominant=-0.01, rest=1.0)),
            ("pdmp", "rest", "[0.0, inf]", lambda: pdmp_coefficient({"a": 0.5}, dominant=1.0, rest=-0.01)),
            ("opm probability", "base", "[0.0, 1.0]", lambda: opm_probability(HALF, -0.01, 0.5)),
            ("opm probability", "strength", "[0.0, inf]", lambda: opm_probability(HALF, 0.5, -0.01)),
            ("opm", "base", "[0.0, 1.0]", lambda: OPM(-0.01)),
            ("opm", "strength", "[0.0, inf]", lambda: OPM(0.5, -0.01)),
            ("drop", "share", "[0.0, 1.0]", lambda: drop_features(LOGITS, {}, share=-0.01)),
            ("drop", "probabilities['audio']", "[0.0, 1.0]", lambda: drop_features(LOGITS, {"audio": -0.01})),
        )
    ),
    *(
        Case(f"{name} above {argument}", call, ValueError, (argument, "a number in [0.0, 1.0], found 1.01"))
        for name, argument, call in (
            ("opm probability", "base", lambda: opm_probability(HALF, 1.01, 0.5)),
            ("opm", "base", lambda: OPM(1.01)),
            ("drop", "share", lambda: drop_features(LOGITS, {}, share=1.01)),
            ("drop released", "share", lambda: drop_features_released(LOGITS, LABELS, {}, share=1.01)),
            ("drop", "probabilities['audio']", lambda: drop_features(LOGITS, {"audio": 1.01})),
        )
    ),
    *(
        Case(f"{name} words of {argument}", call, ValueError, (argument, f"a floating-point tensor {words}, found"))
        for name, argument, words, call in (
            ("agm ratio", "errors", "of shape (m,)", lambda: agm_ratio(HALF[None], present=HERE)),
            ("arl", "entropy", "of shape (m,)", lambda: arl_coefficient(HALF[None], HALF)),
            ("arl", "loudness", "of shape (m,)", lambda: arl_coefficient(HALF, HALF[None])),
            ("cggm", "gains", "of shape (m,)", lambda: cggm_coefficient(HALF[None])),
            ("utilisation", "accuracy", "of shape ()", lambda: utilisation(HALF, {"a": 0.5})),
            ("pmr", "scores", "of shape (m,)", lambda: pmr_weights(HALF[None])),
            ("squared", "target", "of shape (2, 3)", lambda: squared_error_score({"audio": LOGITS["audio"]}, HALF)),
            ("confidence", "uncertainty['a']", 'of shape "b"', lambda: confidence_score({"a": HALF[None]})),
            ("stacked", "logits['a']", 'of shape "b c"', lambda: entropy_score({"a": HALF})),
            ("slice", "features['a']", 'of shape "b d"', lambda: slice_logits(HEAD, {"a": HALF})),
        )
    ),
    *(
        Case(f"{name} words of {argument}", call, TypeError, (argument, f"a floating-point tensor {words}, found"))
        for name, argument, words, call in (
            ("modulate", "loss", "with one value", lambda: modulate(FEATURES, {"audio": 0.5}, LABELS[0])),
            ("drop", "features['audio']", "with one row a sample", lambda: drop_features({"audio": LABELS}, {})),
            ("target ratio", "reference", "of shape (2,)", lambda: discrepancy_ratio(HALF, reference=LABELS)),
            ("table", "ratio", 'of shape (m,) or one row a sample, "b m"', lambda: behind_coefficient(LABELS)),
        )
    ),
    *(
        Case(f"{name} choices", call, ValueError, (argument, f"one of {choices}, found 'OTHERS'"))
        for name, argument, choices, call in (
            ("ratio", "reference", "'others', 'pairwise', 'min'", lambda: discrepancy_ratio(HALF, reference="OTHERS")),
            ("ogm", "reference", "'others', 'pairwise', 'min'", lambda: OGM(1.0, reference="OTHERS")),
            ("opm", "reference", "'others', 'pairwise', 'min'", lambda: OPM(reference="OTHERS")),
            ("mlb", "task", "'classification', 'regression'", lambda: MLB(task="OTHERS")),
        )
    ),
    Case("drop a number", lambda: drop_features({"audio": HALF[0]}, {}), ValueError, ("features['audio']", "()")),
    Case(
        "modulate table",
        lambda: modulate(FEATURES, {"audio": torch.ones(2, 1)}, LOSS),
        ValueError,
        ("coefficients['audio']", "(2,)", "(2, 1)"),
    ),
    Case(
        "modulate complex number",
        lambda: modulate(FEATURES, {"audio": 1j}, LOSS),
        ValueError,
        ("coefficients['audio']",),
    ),
    Case(
        "present of floats",
        lambda: OGM1(LOGITS, LABELS, present={"video": torch.ones(2)}),
        ValueError,
        ("present['video']", "bool", "float32"),
    ),
    Case(
        "present elsewhere",
        lambda: OGM1(LOGITS, LABELS, present={"video": HERE.to("meta")}),
        ValueError,
        ("present['video']", "on cpu", "on meta"),
    ),
    Case(
        "labels of as many modalities", lambda: correct_score(LOGITS, LABELS[[0, 0, 1]]), ValueError, ("labels", "(2,)")
    ),
    Case("a label too large", lambda: correct_score(LOGITS, LABELS + 1), ValueError, ("labels", "from 0 to 2")),
    Case(
        "updates of the unnamed",
        lambda: scale_updates(UNNAMED, {"text": 1.0}),
        ValueError,
        ("coefficients", "['', 'a']"),
    ),
]
