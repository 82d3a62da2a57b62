"""Metrics against literal loops, ties and degenerate cases included."""

import math

import numpy as np
import pytest
from fas.evaluation.metrics import (
    Scored,
    apcer,
    apcer_per_attack,
    auc,
    bpcer,
    bpcer_threshold,
    eer_threshold,
    hter,
    roc,
    tpr_at_fpr,
)
from fas.evaluation.report import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st


@st.composite
def scored(draw):
    n = draw(st.integers(2, 40))
    scores = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))  # many ties
    live = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    live[0], live[1] = True, False
    return np.array(scores) / 8, np.array(live)


def counts(scores, live, t):
    fp = sum(1 for s, y in zip(scores, live, strict=True) if s >= t and not y)
    tp = sum(1 for s, y in zip(scores, live, strict=True) if s >= t and y)
    return fp, tp, sum(not y for y in live), sum(bool(y) for y in live)


cases = settings(max_examples=60, deadline=None)


@cases
@given(scored())
def test_roc_counts_by_hand(data):
    curve = roc(*data)
    assert curve.threshold[0] == np.inf and curve.fpr[0] == curve.tpr[0] == 0
    assert curve.fpr[-1] == curve.tpr[-1] == 1
    assert len(curve.threshold) == len(set(data[0].tolist())) + 1
    for t, fpr, tpr, a, b in zip(*curve, strict=True):
        fp, tp, attacks, live = counts(*data, t)
        assert (a, b) == (fp, tp) and fpr == fp / attacks and tpr == tp / live


@cases
@given(scored())
def test_auc_counts_pairs(data):
    s, y = data
    pairs = [1.0 if p > q else 0.5 if p == q else 0.0 for p in s[y] for q in s[~y]]
    assert auc(s, y) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auc(-s, y) == pytest.approx(1 - auc(s, y), abs=1e-12)


@cases
@given(scored())
def test_eer_threshold_has_the_smallest_gap(data):
    def gap(t):
        fp, tp, attacks, live = counts(*data, t)
        return abs(fp / attacks - (1 - tp / live))

    best = min(gap(t) for t in [*data[0].tolist(), math.inf])
    assert gap(eer_threshold(*data)) == pytest.approx(best, abs=1e-12)


@cases
@given(scored(), st.sampled_from([0.0, 0.01, 0.1, 0.3, 1.0]))
def test_tpr_at_fpr_is_the_last_point_within_the_rate(data, rate):
    found = tpr_at_fpr(*data, rate)
    best = max(
        (tp / live, -fp) for fp, tp, attacks, live in (counts(*data, t) for t in [*data[0].tolist(), math.inf])
        if fp <= rate * attacks + 1e-9
    )  # fmt: skip
    assert found.tpr == best[0]
    assert found.attacks_accepted <= found.attacks_allowed == math.floor(rate * found.attacks + 1e-9)
    assert counts(*data, found.threshold)[:2] == (found.attacks_accepted, found.live_accepted)


@cases
@given(scored(), st.sampled_from([0.0, 0.01, 0.25, 1.0]))
def test_bpcer_threshold_is_the_strictest_within_the_rate(data, rate):
    t = bpcer_threshold(*data, rate)
    assert bpcer(*data, t) <= rate + 1e-9
    for other in [*data[0].tolist(), math.inf]:
        assert other <= t or bpcer(*data, other) > rate


@cases
@given(scored(), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_rates_by_hand(data, t):
    fp, tp, attacks, live = counts(*data, t)
    assert apcer(*data, t) == pytest.approx(fp / attacks)
    assert bpcer(*data, t) == pytest.approx(1 - tp / live)
    assert hter(*data, t) == pytest.approx((fp / attacks + 1 - tp / live) / 2)


def test_apcer_per_attack_and_the_report():
    scores = [0.9, 0.8, 0.7, 0.1, 0.2, 0.85]
    live = [1, 1, 1, 0, 0, 0]
    kinds = ["live", "live", "live", "print", "print", "replay"]
    assert apcer_per_attack(scores, live, kinds, 0.6) == {"print": (0.0, 0, 2), "replay": (1.0, 1, 1)}
    report = evaluate(Scored([0.6, 0.3], [1, 0], ["live", "print"]), Scored(scores, live, kinds))
    assert report.dev_eer.threshold == 0.6
    assert report.dev_eer.apcer == pytest.approx(1 / 3) and report.dev_eer.apcer_max == 1
    assert report.dev_eer.bpcer == 0 and report.hter == report.dev_eer.acer == pytest.approx(1 / 6)
    assert report.dev_eer.acer_max == 0.5
    assert report.oracle.threshold != report.dev_eer.threshold
    assert report.oracle_hter == report.oracle.acer == hter(scores, live, report.oracle.threshold)
    assert report.counts == {"development": 2, "test live": 3, "test attack": 3}
    text = str(report)
    for words in ("test EER (oracle)", "development BPCER 1 %", "replay 100.0 % (1/1)", "below the resolution"):
        assert words in text


def test_the_development_data_alone_choose_the_threshold():
    dev = Scored([0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1], ["print", "print", "live", "live"])
    for shift in (0.0, 0.3):
        test = Scored([0.1 + shift, 0.5 + shift], [0, 1], ["print", "live"])
        assert evaluate(dev, test).dev_eer.threshold == 0.6


@pytest.mark.parametrize(
    ("scores", "live", "words"),
    [
        ([0.1, 0.2], [1, 1], "live: expected live and attack samples"),
        ([], [], "live: expected live and attack samples"),
        ([0.1, float("nan")], [1, 0], "scores: expected numbers, found 1 NaN"),
        ([0.1, 0.2], [1, 0, 1], "live: expected one label a score"),
        ([0.1, 0.2], [1, 2], "live: expected booleans"),
        ([[0.1, 0.2]], [[1, 0]], "scores: expected one axis"),
    ],
)
def test_degenerate_cases_say_what_is_wrong(scores, live, words):
    for metric in (roc, auc, eer_threshold, bpcer_threshold):
        with pytest.raises(ValueError, match=words):
            metric(scores, live)


def test_a_rate_is_a_share():
    with pytest.raises(ValueError, match=r"rate: expected a share in \[0, 1\], found 5"):
        tpr_at_fpr([0.1, 0.2], [0, 1], 5)
    with pytest.raises(ValueError, match="kinds: expected one kind a score"):
        apcer_per_attack([0.1, 0.2], [0, 1], ["print"], 0.5)


def test_infinite_scores_rank_last_and_first():
    assert auc([-np.inf, 0.0, np.inf], [0, 0, 1]) == 1
    assert roc([-np.inf, 0.0, np.inf], [0, 0, 1]).threshold.tolist() == [np.inf, np.inf, 0, -np.inf]
