"""Wrong calls of the rules, of the bridge to TorchJD, and of the suite that checks rules."""

import torch
from torchjd.aggregation import UPGrad, UPGradWeighting

from balancekit import MinNorm, MMPareto, PCGrad, ReGrad, Step, from_torchjd
from balancekit.surgery import min_norm_weights, pcgrad_weights
from balancekit.testing import check_rule
from tests.unit.wrong_calls import Case

NAN = float("nan")


def on(rule, rows: int):
    step = Step(*torch.zeros(3, rows - 1), torch.ones(rows - 1, dtype=torch.bool), torch.tensor([0]), torch.ones(1))
    return lambda: rule(torch.eye(rows)[None], step)


CASES = [
    Case("gamma-zero", lambda: MMPareto(gamma=0.0), ValueError, ("gamma", "(0.0, inf)", "0.0")),
    Case("gamma-negative", lambda: MMPareto(gamma=-1), ValueError, ("gamma", "(0.0, inf)", "-1")),
    Case("gamma-nan", lambda: MMPareto(gamma=NAN), ValueError, ("gamma", "nan")),
    Case("gamma-infinite", lambda: MMPareto(gamma=float("inf")), ValueError, ("gamma", "found inf")),
    Case("gamma-string", lambda: MMPareto(gamma="1.5"), TypeError, ("gamma", "'1.5'")),
    Case("pcgrad-eight-rows", on(PCGrad(), 8), ValueError, ("gram", "at most 7 rows", "found 8")),
    Case("min-norm-eleven-rows", on(MinNorm(), 11), ValueError, ("gram", "at most 10 rows", "found 11")),
    Case("weighting-is-a-class", lambda: from_torchjd(UPGradWeighting), TypeError, ("weighting", "UPGradWeighting()")),
    Case("weighting-is-a-string", lambda: from_torchjd("upgrad"), TypeError, ("weighting", "'upgrad'")),
    Case(
        "weighting-is-an-aggregator",
        lambda: from_torchjd(UPGrad()),
        TypeError,
        ("weighting", "aggregator UPGrad", "gramian_weighting"),
    ),
    Case(
        "weighting-of-a-wrong-shape",
        on(from_torchjd(lambda gram: gram), 3),
        ValueError,
        ("weights of the weighting", "(3,)", "(3, 3)"),
    ),
    Case("checked-rule-is-a-class", lambda: check_rule(ReGrad), TypeError, ("rule", "uses_total")),
    Case("checked-rule-is-a-function", lambda: check_rule(lambda gram, step: gram), TypeError, ("rule", "uses_total")),
    Case("no-modality", lambda: check_rule(ReGrad(), modalities=(0,)), ValueError, ("modalities", "at least 1", "0")),
    Case("no-draw", lambda: check_rule(ReGrad(), draws=0), ValueError, ("draws", "at least 1", "0")),
    Case("checked-modalities", lambda: check_rule(ReGrad(), modalities=3), TypeError, ("modalities", "a list", "3")),
    Case(
        "checked-nobody", lambda: check_rule(ReGrad(), modalities=()), TypeError, ("modalities", "at least one", "()")
    ),
    Case("checked-seed", lambda: check_rule(ReGrad(), seed="0"), TypeError, ("seed", "'0'")),
    Case("checked-seed-half", lambda: check_rule(ReGrad(), seed=0.5), TypeError, ("seed", "0.5")),
    Case("checked-tolerance", lambda: check_rule(ReGrad(), tolerance=None), TypeError, ("tolerance", "None")),
    Case("checked-tolerance-nan", lambda: check_rule(ReGrad(), tolerance=NAN), ValueError, ("tolerance", "nan")),
    Case("pcgrad-eight", lambda: pcgrad_weights(torch.eye(8)[None]), ValueError, ("gram", "at most 7", "8")),
    Case("min-norm-eleven", lambda: min_norm_weights(torch.eye(11)[None]), ValueError, ("gram", "at most 10", "11")),
]
