"""Wrong calls of summaries, scores, spread and query in balancekit.uncertainty."""

import torch

from balancekit.uncertainty import (
    ProbabilisticQuery,
    ProbabilitySummary,
    ValueSummary,
    area_under_risk_coverage,
    brier_score,
    mutual_information,
    negative_log_likelihood,
    risk_coverage,
    sample_spread,
    standard_normal_divergence,
)
from tests.unit.wrong_calls import Case

probs, labels, doubt = torch.full((3, 2, 4), 0.25), torch.tensor([0, 3]), torch.ones(5)
integers = torch.ones(3, 2, 4, dtype=torch.long)
head = ProbabilisticQuery(4)


def seen() -> ProbabilitySummary:
    summary = ProbabilitySummary()
    summary.update(probs[:1])
    return summary


def valued(variance: torch.Tensor | None = None) -> ValueSummary:
    summary = ValueSummary()
    summary.update(probs, variance)
    return summary


FILLED, VALUES, ELSEWHERE = seen(), valued(), ProbabilitySummary()
ELSEWHERE.update(probs[:1].to("meta"))
SPREAD, NARROW, AWAY = valued(probs), ValueSummary(), ValueSummary()
NARROW.update(probs[..., :3])
AWAY.update(probs.to("meta"))

CASES = [
    Case("corrected one", lambda: mutual_information(probs[:1], corrected=True), ValueError, ("probs", "two samples")),
    # ProbabilitySummary
    Case("probs integers", lambda: seen().update(integers), TypeError, ("probs", "int64")),
    Case("probs axes", lambda: seen().update(probs[0, 0]), ValueError, ("probs", "s b c", "(4,)")),
    Case("probs none", lambda: seen().update(probs[:0]), ValueError, ("probs", "(0, 2, 4)")),
    Case("probs other batch", lambda: seen().update(probs[:, :1]), ValueError, ("probs", "(3, 2, 4)", "(3, 1, 4)")),
    Case("probs one sample bare", lambda: seen().update(probs[0]), ValueError, ("probs", "(2, 2, 4)", "(2, 4)")),
    Case("compute nothing", lambda: ProbabilitySummary().compute(), RuntimeError, ("summary", "one update")),
    Case("compute corrected one", lambda: seen().compute(corrected=True), ValueError, ("summary", "two samples", "1")),
    Case("merge values", lambda: seen().merge(valued()), TypeError, ("other", "ProbabilitySummary")),  # type: ignore[arg-type]
    Case(
        "merge other shape",
        lambda: seen().merge(_of_other_shape()),
        ValueError,
        ("other", "(2, 4)", "(1, 4)"),
    ),
    # ValueSummary
    Case("values integers", lambda: valued().update(integers), TypeError, ("values", "int64")),
    Case("values scalar", lambda: valued().update(torch.ones(())), ValueError, ("values", "s ...")),
    Case("values none", lambda: valued().update(probs[:0]), ValueError, ("values", "(0, 2, 4)")),
    Case("values other shape", lambda: valued().update(probs[..., :3]), ValueError, ("values", "(3, 2, 3)")),
    Case("variance shape", lambda: ValueSummary().update(probs, probs[:1]), ValueError, ("variance", "(3, 2, 4)")),
    Case("variance integers", lambda: ValueSummary().update(probs, integers), TypeError, ("variance", "int64")),
    Case("variance at once", lambda: valued().update(probs, probs), ValueError, ("variance", "None")),
    Case("variance no more", lambda: valued(probs).update(probs), ValueError, ("variance", "there was one")),
    Case("values nothing", lambda: ValueSummary().compute(), RuntimeError, ("summary", "one update")),
    Case("merge probabilities", lambda: valued().merge(seen()), TypeError, ("other", "ValueSummary")),  # type: ignore[arg-type]
    Case("merge with variance", lambda: valued().merge(valued(probs)), ValueError, ("other", "no variance")),
    # scores
    *(
        case
        for name, score in (("logits", negative_log_likelihood), ("probs", brier_score))
        for case in (
            Case(f"{name} integers", lambda f=score: f(integers, labels), TypeError, (name, "int64")),
            Case(f"{name} axes", lambda f=score: f(probs[0, 0], labels), ValueError, (name, "s b c")),
            Case(f"{name} labels shape", lambda f=score: f(probs, labels[:1]), ValueError, ("labels", "(2,)", "(1,)")),
            Case(f"{name} labels floating", lambda f=score: f(probs, labels / 3), TypeError, ("labels", "float32")),
            Case(f"{name} labels range", lambda f=score: f(probs, labels + 1), ValueError, ("labels", "0 to 3", "4")),
            Case(f"{name} labels list", lambda f=score: f(probs, [0, 3]), TypeError, ("labels", "[0, 3]")),
        )
    ),
    # risk and coverage
    Case("risk integers", lambda: risk_coverage(labels, doubt), TypeError, ("uncertainty", "int64")),
    Case("risk map", lambda: risk_coverage(probs, doubt), ValueError, ("uncertainty", "(3, 2, 4)")),
    Case("risk bool losses", lambda: risk_coverage(doubt, doubt > 0), TypeError, ("losses", "bool")),
    Case("risk fewer losses", lambda: risk_coverage(doubt, doubt[:3]), ValueError, ("losses", "(5,)", "(3,)")),
    Case(
        "area of nothing", lambda: area_under_risk_coverage(doubt[:0], doubt[:0]), ValueError, ("uncertainty", "(0,)")
    ),
    # spread
    Case("spread integers", lambda: sample_spread(integers), TypeError, ("samples", "int64")),
    Case("spread of one", lambda: sample_spread(probs[:1]), ValueError, ("samples", "two samples", "(1, 2, 4)")),
    Case("spread axes", lambda: sample_spread(doubt), ValueError, ("samples", "s b n d", "(5,)")),
    Case("spread of no channel", lambda: sample_spread(probs[..., :0]), ValueError, ("samples", "channel")),
    # query
    Case("query dim", lambda: ProbabilisticQuery(0), ValueError, ("dim", "0")),
    Case("query tokens", lambda: head(probs[..., :3]), ValueError, ("tokens", "(3, 2, 4)")),
    Case("query integers", lambda: head(integers), TypeError, ("tokens", "int64")),
    Case(
        "divergence shapes",
        lambda: standard_normal_divergence(probs, log_variance=probs[:1]),
        ValueError,
        ("log_variance", "(3, 2, 4)"),
    ),
    Case("divergence mean", lambda: standard_normal_divergence(integers, log_variance=probs), TypeError, ("mean",)),
    Case("probs elsewhere", lambda: FILLED.update(probs[:1].to("meta")), ValueError, ("probs", "on cpu", "on meta")),
    Case("merge elsewhere", lambda: FILLED.merge(ELSEWHERE), ValueError, ("other", "on cpu", "on meta")),
    Case("values elsewhere", lambda: VALUES.update(probs.to("meta")), ValueError, ("values", "on meta")),
    Case(
        "variance elsewhere",
        lambda: ValueSummary().update(probs, probs.to("meta")),
        ValueError,
        ("variance", "on meta"),
    ),
    Case("values a list", lambda: VALUES.update([1.0]), TypeError, ("values", "[1.0]")),
    Case(
        "labels elsewhere", lambda: brier_score(probs, labels.to("meta")), ValueError, ("labels", "on cpu", "on meta")
    ),
    Case(
        "likelihood elsewhere",
        lambda: negative_log_likelihood(probs, labels.to("meta")),
        ValueError,
        ("labels", "on meta"),
    ),
    Case("risk elsewhere", lambda: risk_coverage(doubt, doubt.to("meta")), ValueError, ("losses", "on cpu", "on meta")),
    Case("area list", lambda: area_under_risk_coverage([0.5], doubt), TypeError, ("uncertainty", "[0.5]")),
    Case(
        "divergence elsewhere",
        lambda: standard_normal_divergence(probs, log_variance=probs.to("meta")),
        ValueError,
        ("log_variance", "on meta"),
    ),
    # what is expected, to the letter
    *(
        Case(f"words {argument}: {expected}", call, error, (argument, f": expected {expected}, found "))
        for argument, expected, error, call in (
            ("probs", 'a floating-point tensor "s b c"', TypeError, lambda: FILLED.update(integers)),
            ("probs", "a tensor of shape (2, 2, 4)", ValueError, lambda: FILLED.update(probs[:2, :1])),
            ("other", "a tensor of shape (2, 4)", ValueError, lambda: FILLED.merge(_of_other_shape())),
            ("values", 'a floating-point tensor "s ..."', TypeError, lambda: VALUES.update(integers)),
            ("values", "a tensor of shape (3, 2, 4)", ValueError, lambda: VALUES.update(probs[:, 0])),
            ("variance", 'a floating-point tensor "s ..."', TypeError, lambda: VALUES.update(probs, integers)),
            ("variance", "a tensor of shape (3, 2, 4)", ValueError, lambda: VALUES.update(probs, probs[0])),
            ("variance", "None, as there was no variance before", ValueError, lambda: VALUES.update(probs, probs)),
            ("variance", "a variance, as there was one before", ValueError, lambda: SPREAD.update(probs)),
            ("other", "a variance, as there was one before", ValueError, lambda: SPREAD.merge(VALUES)),
            ("other", "a tensor of shape (2, 4)", ValueError, lambda: VALUES.merge(NARROW)),
            ("logits", 'a floating-point tensor "s b c"', TypeError, lambda: negative_log_likelihood(integers, labels)),
            ("probs", 'a floating-point tensor "s b c"', TypeError, lambda: brier_score(integers, labels)),
            ("labels", "an integer tensor of shape (2,)", ValueError, lambda: brier_score(probs, labels[None])),
            ("labels", "integers from 0 to 3", TypeError, lambda: brier_score(probs, labels > 0)),
            ("uncertainty", 'a floating-point tensor "b"', TypeError, lambda: risk_coverage(labels, doubt)),
            ("uncertainty", 'a floating-point tensor "b"', ValueError, lambda: risk_coverage(doubt[None], doubt)),
            ("losses", 'a floating-point tensor "b"', TypeError, lambda: risk_coverage(doubt, labels)),
            ("losses", 'a floating-point tensor "b"', ValueError, lambda: risk_coverage(doubt, doubt[None])),
            ("losses", "a tensor of shape (5,)", ValueError, lambda: risk_coverage(doubt, doubt[1:])),
            ("samples", 'a floating-point tensor "s b n d"', TypeError, lambda: sample_spread(integers)),
            ("dim", "an integer of at least 1", ValueError, lambda: ProbabilisticQuery(0)),
            ("tokens", "a floating-point tensor of shape (b, n, 4)", TypeError, lambda: head(integers)),
            ("tokens", "a tensor of shape (b, n, 4)", ValueError, lambda: head(torch.ones(()))),
            ("tokens", "a tensor of shape (3, 2, 4)", ValueError, lambda: head(probs[..., :1])),
            (
                "mean",
                'a floating-point tensor "b n d"',
                TypeError,
                lambda: standard_normal_divergence(integers, log_variance=probs),
            ),
            (
                "mean",
                'a tensor "b n d"',
                ValueError,
                lambda: standard_normal_divergence(torch.ones(()), log_variance=torch.ones(())),
            ),
            (
                "log_variance",
                'a floating-point tensor "b n d"',
                TypeError,
                lambda: standard_normal_divergence(probs, log_variance=integers),
            ),
            (
                "log_variance",
                "a tensor of shape (3, 2, 4)",
                ValueError,
                lambda: standard_normal_divergence(probs, log_variance=probs[0]),
            ),
        )
    ),
    Case("merge values elsewhere", lambda: VALUES.merge(AWAY), ValueError, ("other", "on cpu", "on meta")),
]


def _of_other_shape() -> ProbabilitySummary:
    summary = ProbabilitySummary()
    summary.update(probs[:, :1])
    return summary
