"""The bootstrap against materialised resamples, the ordinary bootstrap, and a truth that is known."""

import math

import numpy as np
import pytest
from fas.evaluation import weighted
from fas.evaluation.intervals import difference, drop, interval, paired, sample, summary
from fas.evaluation.metrics import Scored, apcer, auc, bpcer, eer_threshold, hter
from fas.evaluation.persons import draws, persons
from fas.evaluation.results import Result
from fas.protocols import Cell

CELL = Cell("P1", ("C", "P", "S"), ("W",))
DEV = Scored([0.0, 1.0], [0, 1], ["print", "live"], [0, 1])  # its threshold is 1


def scored(generator, count=60, people=12, shift=1.0, spread=0.0, live_share=0.5, ties=False):
    """Scores with a level of its own for each person."""
    who = generator.integers(people, size=count)
    live = generator.random(count) < live_share
    live[:2] = True, False
    scores = 0.5 + shift * live + spread * generator.normal(size=people)[who] + generator.normal(size=count)
    kinds = np.where(live, "live", np.where(generator.random(count) < 0.5, "print", "replay"))
    return Scored(scores.round(1 if ties else 12), live, kinds.tolist(), who)


def result(test, *, system="one", seed=0, cell=CELL):
    return Result(system, cell, seed, "last", DEV, test)


@pytest.mark.parametrize("ties", [False, True])
def test_weights_are_a_resample(ties):
    generator = np.random.default_rng(0)
    test = scored(generator, ties=ties)
    weights = generator.integers(0, 3, size=(20, 60)).astype(float)
    weights[:, :2] += 1
    fixed = eer_threshold(DEV.scores, DEV.live)
    for row, w in enumerate(weights.astype(int)):
        s, y = np.repeat(test.scores, w), np.repeat(test.live, w)
        for statistic, expected in (
            (weighted.auc, auc(s, y)),
            (weighted.apcer, apcer(s, y, fixed)),
            (weighted.bpcer, bpcer(s, y, fixed)),
            (weighted.hter, hter(s, y, fixed)),
        ):
            assert statistic(result(test), weights)[row] == pytest.approx(expected, abs=1e-12)


def test_a_person_comes_whole_and_an_unknown_one_is_a_sample():
    test = Scored(np.zeros(6), [1, 0, 1, 0, 1, 0], ["live", "print"] * 3, [7, 7, -1, -1, 3, 3])
    assert len(set(persons(test))) == 4
    assert persons(test)[0] == persons(test)[1] and persons(test)[2] != persons(test)[3]
    drawn = draws(test, 500, seed=0)
    assert (drawn.sum(1) == 4).all()
    for w in drawn[:, persons(test)]:
        assert w[0] == w[1] and w[4] == w[5]
        assert w[::2].sum() > 0 and w[1::2].sum() > 0  # never without live, never without attack
    assert (drawn == draws(test._replace(scores=np.ones(6)), 500, seed=0)).all()  # the scores have no say
    assert not (drawn == draws(test, 500, seed=1)).all()


def test_distinct_persons_are_the_ordinary_bootstrap():
    test = scored(np.random.default_rng(1), count=150)._replace(identities=None)
    found = summary(sample([result(test)], weighted.hter, replicates=4000))
    generator, values = np.random.default_rng(2), []
    for _ in range(4000):
        rows = generator.integers(150, size=150)
        values.append(hter(test.scores[rows], test.live[rows], 1.0))
    assert found.mean == hter(test.scores, test.live, 1.0) and math.isnan(found.sd)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), abs=0.01)
    numbered = test._replace(identities=np.arange(150))
    assert interval([result(numbered)], replicates=4000)[2:] == found[2:]


def test_persons_widen_the_interval():
    test = scored(np.random.default_rng(3), count=400, people=10, spread=1.5)
    whole, alone = (
        interval([result(t)], weighted.bpcer) for t in (test, test._replace(identities=None))
    )  # fmt: skip
    assert whole.high - whole.low > 1.5 * (alone.high - alone.low)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    generator, hits = np.random.default_rng(4), 0
    truth = (math.erfc(0.5 / math.sqrt(4)) / 2 + math.erfc(0.5 / math.sqrt(4)) / 2) / 2  # spread √2, half a unit away
    for _ in range(150):
        tests = [scored(generator, count=120, people=40, spread=1.0) for _ in range(5)]
        found = interval([result(test, seed=k) for k, test in enumerate(tests)], replicates=200)
        hits += found.low <= truth <= found.high
    assert 0.9 <= hits / 150 <= 1


def test_a_pair_is_compared_on_the_same_draws():
    generator = np.random.default_rng(5)
    tests = [scored(generator, count=200, spread=1.0) for _ in range(3)]
    ours = [result(test, seed=k) for k, test in enumerate(tests)]
    same = [result(test._replace(scores=test.scores + 0.0), seed=k, system="two") for k, test in enumerate(tests)]
    assert paired(ours, same) == (0, 0, 0, 0) and paired(ours, same).shows == 0
    worse = [r._replace(test=r.test._replace(scores=r.test.scores - 0.4 * r.test.live)) for r in same]
    gap, alone = paired(worse, ours), interval(ours)
    assert gap.shows == 1 and paired(ours, worse).shows == -1
    assert gap.high - gap.low < alone.high - alone.low
    assert gap.mean == pytest.approx(interval(worse).mean - alone.mean)


def test_the_average_is_the_mean_over_cells_in_each_draw():
    generator = np.random.default_rng(6)
    other = CELL._replace(targets=("C",))
    test = [scored(generator) for _ in range(4)]
    first = [result(test[k], seed=k) for k in (0, 1)]
    second = [result(test[2 + k], seed=k, cell=other) for k in (1, 0)]
    whole, a, b = (sample(rows, replicates=50) for rows in (first + second, first, second))
    assert whole.replicates == pytest.approx((a.replicates + b.replicates) / 2)
    assert whole.by_seed == pytest.approx((a.by_seed + b.by_seed) / 2)
    blind = [r._replace(cell=CELL._replace(missing=("depth",))) for r in first]  # the same people, other sensors
    assert sample(first + blind, replicates=50).replicates == pytest.approx(a.replicates)


def test_one_test_set_for_all_seeds_is_drawn_once():
    test = scored(np.random.default_rng(7), count=200)
    same = [result(test, seed=k) for k in range(4)]
    found, alone = sample(same, replicates=300), sample(same[:1], replicates=300)
    assert found.replicates == pytest.approx(alone.replicates)  # seeds that agree leave the chance among persons whole


def test_the_relative_drop():
    generator = np.random.default_rng(8)
    test = scored(generator, count=300, shift=1.0)
    better = test._replace(scores=np.where(test.live, test.scores + 1, test.scores - 1))
    base, ours = (sample([result(t)], replicates=200) for t in (test, better))
    found = drop(base, ours)
    assert found.mean == pytest.approx(1 - ours.by_seed[0] / base.by_seed[0])
    assert 0 < found.low < found.mean < found.high < 1
    perfect = sample([result(Scored([0.0, 1.0] * 9, [0, 1] * 9, ["print", "live"] * 9))], replicates=20)
    with pytest.raises(ValueError, match="baseline: expected a figure above 0"):
        drop(perfect, ours)


def test_wrong_calls():
    generator = np.random.default_rng(9)
    a, b = scored(generator), scored(generator)
    with pytest.raises(ValueError, match=r"expected every seed once, the same in all cells, found \[\(0, 0\)\]"):
        sample([result(a), result(b)])
    with pytest.raises(ValueError, match="expected every seed once"):
        sample([result(a), result(b, seed=1), result(a, cell=CELL._replace(targets=("C",)))])
    with pytest.raises(ValueError, match="expected one system at one epoch"):
        sample([result(a), result(b, seed=1, system="two")])
    with pytest.raises(ValueError, match="expected one system at one epoch, found"):
        sample([])
    with pytest.raises(ValueError, match="found two in CPS→W, seed 0"):
        paired([result(a)], [result(b, system="two")])
    with pytest.raises(ValueError, match="found CPS→W, seed 1 in one only"):
        paired([result(a)], [result(a, system="two"), result(b, system="two", seed=1)])
    with pytest.raises(ValueError, match="live: expected live and attack samples"):
        interval([result(a._replace(live=np.ones(60)))])
    with pytest.raises(ValueError, match="identities: expected one a score"):
        interval([result(a._replace(identities=[1, 2]))])
    assert difference(sample([result(a)]), sample([result(a)])).low == 0
