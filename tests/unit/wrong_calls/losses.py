"""Wrong calls of the losses."""

import numpy as np
import torch

from balancekit.losses import (
    confidence_ranking_loss,
    cosine_logits,
    decouple,
    feature_distillation,
    gblend_weights,
    lfm_loss,
    lfm_schedule,
    pmr_loss,
    tcmax_loss,
    unimodal_distillation,
    unimodal_loss,
)
from balancekit.prototypes import PrototypeBank
from tests.unit.wrong_calls import Case

NAN = float("nan")
X = {name: torch.linspace(-1, 1, 12).reshape(4, 3) for name in ("audio", "touch", "video")}
Y = torch.arange(4) % 3
CONFIDENCES = {"a": torch.ones(3), ("a", "b"): torch.ones(3)}
M = torch.ones(2)
BANKS = {name: PrototypeBank(3, 3, decay=0.5) for name in X}
for bank in BANKS.values():
    bank.update(X["audio"], Y)
AWAY = X["audio"].to("meta")  # stands for another device


def with_video(value: object) -> dict:
    return {**X, "video": value}


CASES = [
    Case("logits-are-a-list", lambda: tcmax_loss(list(X.values()), Y), TypeError, ("logits", "mapping")),
    Case("no-modality", lambda: tcmax_loss({}, Y), ValueError, ("logits", "at least one modality")),
    Case("integer-logits", lambda: unimodal_loss({"a": Y[:, None]}, Y), TypeError, ("logits['a']", "(b, c)")),
    Case("logits-of-one-axis", lambda: lfm_loss({"a": torch.ones(4)}, Y, 0.5), ValueError, ("logits['a']", "(b, c)")),
    Case(
        "other-classes",
        lambda: tcmax_loss({"a": torch.ones(4, 3), "b": torch.ones(4, 2)}, Y),
        ValueError,
        ("logits['b']", "(4, 3)", "(4, 2)"),
    ),
    Case(
        "no-sample", lambda: tcmax_loss({"a": torch.ones(0, 3)}, Y[:0]), ValueError, ("logits", "at least one sample")
    ),
    Case("too-few-labels", lambda: tcmax_loss(X, Y[:3]), ValueError, ("labels", "(4,)", "(3,)")),
    Case("float-labels", lambda: lfm_loss(X, Y.double(), 0.5), TypeError, ("labels", "integers")),
    Case("label-out-of-range", lambda: unimodal_loss(X, Y + 1), ValueError, ("labels", "0 to 2", "1 to 3")),
    Case("alpha-above-one", lambda: lfm_loss(X, Y, 1.5), ValueError, ("alpha", "[0.0, 1.0]", "1.5")),
    Case("negative-weight", lambda: unimodal_loss(X, Y, weight=-1.0), ValueError, ("weight", "-1.0")),
    Case("schedule-without-steps", lambda: lfm_schedule(0, 0), ValueError, ("total",)),
    Case("schedule-from-one", lambda: lfm_schedule(0, 9, start=1.0), ValueError, ("start", "0.95")),
    Case("schedule-to-zero", lambda: lfm_schedule(0, 9, end=0.0), ValueError, ("end", "0.05")),
    Case("negative-step", lambda: lfm_schedule(-1, 9), ValueError, ("step", "-1")),
    Case(
        "a-weight-is-missing",
        lambda: cosine_logits(X, {"audio": X["audio"]}),
        ValueError,
        ("weights", "['audio', 'touch', 'video']", "'audio'"),
    ),
    Case(
        "weights-of-other-width",
        lambda: cosine_logits({"a": torch.ones(2, 3)}, {"a": torch.ones(5, 4)}),
        ValueError,
        ("weights['a']", "(5, 3)", "(5, 4)"),
    ),
    Case(
        "weights-of-other-classes",
        lambda: cosine_logits({"a": M[None], "b": M[None]}, {"a": torch.ones(5, 2), "b": torch.ones(4, 2)}),
        ValueError,
        ("weights['b']", "(5, 2)", "(4, 2)"),
    ),
    Case(
        "features-of-other-length",
        lambda: cosine_logits({"a": torch.ones(1, 2), "b": torch.ones(3, 2)}, dict.fromkeys("ab", torch.ones(5, 2))),
        ValueError,
        ("features['b']", "(1, 2)", "(3, 2)"),
    ),
    Case(
        "features-without-columns",
        lambda: cosine_logits({"a": torch.ones(2, 0)}, {"a": torch.ones(5, 0)}),
        ValueError,
        ("features['a']", "at least one column"),
    ),
    Case("scale-zero", lambda: cosine_logits(X, X, scale=0.0), ValueError, ("scale", "0.0")),
    Case("decoupled-integers", lambda: decouple({"a": Y}), TypeError, ("features['a']", "floating-point")),
    Case("confidences-are-a-tensor", lambda: confidence_ranking_loss(M), TypeError, ("confidences", "mapping")),
    Case("no-confidences", lambda: confidence_ranking_loss({}), ValueError, ("confidences", "at least one set")),
    Case("key-is-a-number", lambda: confidence_ranking_loss({3: M}), ValueError, ("confidences", "keys", "3")),
    Case("key-is-empty", lambda: confidence_ranking_loss({(): M}), ValueError, ("confidences", "keys", "()")),
    Case(
        "one-set-twice",
        lambda: confidence_ranking_loss({("a", "b"): M, ("b", "a"): M}),
        ValueError,
        ("confidences", "once", "['a', 'b']"),
    ),
    Case("no-pair", lambda: confidence_ranking_loss({"a": M, "b": M}), ValueError, ("confidences", "one more", "'a'")),
    Case(
        "no-pair-of-one-step",
        lambda: confidence_ranking_loss({"a": M, ("a", "b", "c"): M}),
        ValueError,
        ("confidences", "one more"),
    ),
    Case(
        "confidences-of-other-length",
        lambda: confidence_ranking_loss({"a": M, ("a", "b"): torch.ones(3)}),
        ValueError,
        ("confidences['a', 'b']", "(2,)", "(3,)"),
    ),
    Case(
        "confidences-of-two-axes",
        lambda: confidence_ranking_loss({"a": M[None]}),
        ValueError,
        ("confidences['a']", "(b,)", "(1, 2)"),
    ),
    Case(
        "no-sample-ranked",
        lambda: confidence_ranking_loss({"a": M[:0], ("a", "b"): M[:0]}),
        ValueError,
        ("confidences", "at least one sample"),
    ),
    Case(
        "counts-of-a-small-set",
        lambda: confidence_ranking_loss(CONFIDENCES, counts={"a": torch.ones(3, dtype=torch.bool)}),
        ValueError,
        ("counts", "'a', 'b'"),
    ),
    Case(
        "counts-as-floats",
        lambda: confidence_ranking_loss(CONFIDENCES, counts={("a", "b"): torch.ones(3)}),
        TypeError,
        ("counts['a', 'b']", "bool", "float32"),
    ),
    Case(
        "counts-of-other-length",
        lambda: confidence_ranking_loss(CONFIDENCES, counts={("a", "b"): torch.ones(2, dtype=torch.bool)}),
        ValueError,
        ("counts['a', 'b']", "(3,)", "(2,)"),
    ),
    Case(
        "no-teacher",
        lambda: feature_distillation(X, {"audio": X["audio"]}),
        ValueError,
        ("teacher_features", "['audio', 'touch', 'video']", "'audio'"),
    ),
    Case(
        "teacher-of-other-shape",
        lambda: feature_distillation({"a": M}, {"a": torch.ones(3)}),
        ValueError,
        ("teacher_features['a']", "(2,)", "(3,)"),
    ),
    Case(
        "no-sample-distilled",
        lambda: feature_distillation({"a": M[:0]}, {"a": M[:0]}),
        ValueError,
        ("features['a']", "at least one sample"),
    ),
    Case(
        "teacher-logits-of-one-axis",
        lambda: unimodal_distillation({"a": M[None]}, {"a": M}, X, X),
        ValueError,
        ("teacher_logits['a']", "(b, c)", "(2,)"),
    ),
    Case(
        "negative-logit-weight",
        lambda: unimodal_distillation(X, X, X, X, logit_weight=-1.0),
        ValueError,
        ("logit_weight", "-1.0"),
    ),
    Case(
        "negative-feature-weight",
        lambda: unimodal_distillation(X, X, X, X, feature_weight=-1.0),
        ValueError,
        ("feature_weight", "-1.0"),
    ),
    Case("no-loss-to-blend", lambda: gblend_weights(*[M[:0]] * 4), ValueError, ("train_before", "at least one loss")),
    Case(
        "losses-of-two-axes", lambda: gblend_weights(M[None], M, M, M), ValueError, ("train_before", "(m,)", "(1, 2)")
    ),
    Case(
        "losses-of-other-length",
        lambda: gblend_weights(M, M, M, torch.ones(3)),
        ValueError,
        ("val_after", "(2,)", "(3,)"),
    ),
    Case("losses-as-numbers", lambda: gblend_weights(M, 1.0, M, M), TypeError, ("train_after", "1.0")),
    Case(
        "logits-as-an-array",
        lambda: unimodal_loss(with_video(np.ones((4, 3))), Y),
        TypeError,
        ("logits['video']", "ndarray"),
    ),
    Case(
        "logits-elsewhere",
        lambda: unimodal_loss(with_video(AWAY), Y),
        ValueError,
        ("logits['video']", "on cpu", "on meta"),
    ),
    Case("labels-elsewhere", lambda: tcmax_loss(X, Y.to("meta")), ValueError, ("labels", "on cpu", "on meta")),
    Case("labels-one-hot", lambda: lfm_loss(X, torch.eye(3)[Y], 0.5), ValueError, ("labels", "(4,)", "(4, 3)")),
    Case("weight-nan", lambda: unimodal_loss(X, Y, weight=NAN), ValueError, ("weight", "nan")),
    Case("weight-bool", lambda: unimodal_loss(X, Y, weight=True), TypeError, ("weight", "True")),
    Case("alpha-nan", lambda: lfm_loss(X, Y, NAN), ValueError, ("alpha", "nan")),
    Case("alpha-tensor", lambda: lfm_loss(X, Y, torch.tensor(0.5)), TypeError, ("alpha", "float32")),
    Case("total-string", lambda: lfm_schedule(0, "9"), TypeError, ("total", "'9'")),
    Case("decoupled-list", lambda: decouple(list(X.values())), TypeError, ("features", "mapping")),
    Case("decoupled-nothing", lambda: decouple({}), ValueError, ("features", "at least one")),
    Case("scale-nan", lambda: cosine_logits(X, X, scale=NAN), ValueError, ("scale", "nan")),
    Case(
        "features-elsewhere", lambda: cosine_logits(with_video(AWAY), X), ValueError, ("features['video']", "on meta")
    ),
    Case("weights-elsewhere", lambda: cosine_logits(X, with_video(AWAY)), ValueError, ("weights['video']", "on meta")),
    Case(
        "confidences-elsewhere",
        lambda: confidence_ranking_loss({"a": M, ("a", "b"): M.to("meta")}),
        ValueError,
        ("confidences['a', 'b']", "on cpu", "on meta"),
    ),
    Case(
        "counts-elsewhere",
        lambda: confidence_ranking_loss(CONFIDENCES, counts={("a", "b"): torch.ones(3, device="meta") > 0}),
        ValueError,
        ("counts['a', 'b']", "on meta"),
    ),
    Case(
        "counts-as-a-list", lambda: confidence_ranking_loss(CONFIDENCES, counts=[True]), TypeError, ("counts", "[True]")
    ),
    Case(
        "teacher-elsewhere",
        lambda: feature_distillation(X, with_video(AWAY)),
        ValueError,
        ("teacher_features['video']", "on cpu", "on meta"),
    ),
    Case(
        "teacher-logits-elsewhere",
        lambda: unimodal_distillation(X, with_video(AWAY), X, X),
        ValueError,
        ("teacher_logits['video']", "on meta"),
    ),
    Case("losses-elsewhere", lambda: gblend_weights(M, M, M.to("meta"), M), ValueError, ("val_before", "on meta")),
    Case("losses-as-integers", lambda: gblend_weights(M, M, M.long(), M), TypeError, ("val_before", "int64")),
    Case("pmr-tensor", lambda: pmr_loss(X["audio"], Y, BANKS), TypeError, ("features", "mapping")),
    Case(
        "pmr-tokens",
        lambda: pmr_loss(with_video(torch.ones(4, 2, 3)), Y, BANKS),
        ValueError,
        ("features['video']", "(4, 2, 3)"),
    ),
    Case(
        "pmr-width",
        lambda: pmr_loss(with_video(torch.ones(4, 2)), Y, BANKS),
        ValueError,
        ("features['video']", "(4, 3)", "(4, 2)"),
    ),
    Case("pmr-elsewhere", lambda: pmr_loss(with_video(AWAY), Y, BANKS), ValueError, ("features['video']", "on meta")),
    Case("pmr-labels-list", lambda: pmr_loss(X, [0, 1, 2, 0], BANKS), TypeError, ("labels", "(4,)", "[0, 1, 2, 0]")),
    Case("pmr-labels-range", lambda: pmr_loss(X, Y + 1, BANKS), ValueError, ("labels", "0 to 2", "1 to 3")),
    Case("pmr-labels-negative", lambda: pmr_loss(X, Y - 1, BANKS), ValueError, ("labels", "0 to 2", "-1 to 1")),
    Case("pmr-no-banks", lambda: pmr_loss(X, Y, None), TypeError, ("banks", "mapping", "None")),
    Case("pmr-bank-missing", lambda: pmr_loss(X, Y, {"audio": BANKS["audio"]}), ValueError, ("banks", "'touch'")),
    Case(
        "pmr-bank-is-a-class",
        lambda: pmr_loss(X, Y, {**BANKS, "video": PrototypeBank}),
        TypeError,
        ("banks['video']", "a PrototypeBank"),
    ),
    Case("pmr-alpha", lambda: pmr_loss(X, Y, BANKS, alpha=-1.0), ValueError, ("alpha", "-1.0")),
    Case("pmr-mu", lambda: pmr_loss(X, Y, BANKS, mu=NAN), ValueError, ("mu", "nan")),
]
