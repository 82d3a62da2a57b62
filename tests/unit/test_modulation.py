import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

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
    Acted,
    EpistemicModulation,
    Modulated,
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
    slice_logits,
    squared_error_score,
    suppress_best_coefficient,
    true_class_score,
    two_sided_coefficient,
    utilisation,
    zero_out_logits,
)
from balancekit.modulation._epistemic import confidence_ratio
from tests.compiling import fullgraph

some = settings(max_examples=50, deadline=None)
scores = st.lists(st.floats(0.0, 100.0, width=32), min_size=1, max_size=5).map(torch.tensor)


@some
@given(scores)
def test_pmr_weights_lie_in_the_unit_interval_and_spare_the_best_and_the_worst(s) -> None:
    pce, per = pmr_weights(s)
    for weight in (pce, per):
        assert (weight >= 0).all()
        assert (weight <= 1).all()
    assert not pce[s == s.max()].any()
    assert not per[s == s.min()].any()


@some
@given(scores, st.integers(-20, 20))
def test_pmr_weights_see_ratios_only(s, exponent) -> None:
    s = torch.where(s < 1e-20, 0, s)
    for actual, expected in zip(pmr_weights(s * 2.0**exponent), pmr_weights(s), strict=True):
        assert torch.equal(actual, expected)


@some
@given(scores, st.randoms(use_true_random=False))
def test_pmr_weights_follow_the_names(s, random) -> None:
    order = random.sample(range(len(s)), len(s))
    for actual, expected in zip(pmr_weights(s[order]), pmr_weights(s), strict=True):
        assert torch.equal(actual, expected[order])


def test_pmr_weights_grow_with_the_discrepancy() -> None:
    ahead = [pmr_weights(torch.tensor([1.0, 1.0 + x])) for x in (0.0, 0.2, 0.5, 1.0, 3.0)]
    pce, per = (torch.stack(rows) for rows in zip(*ahead, strict=True))
    torch.testing.assert_close(pce[:, 0], torch.tensor([0.0, 0.2, 0.5, 1.0, 1.0]))  # the slow one is sped up
    torch.testing.assert_close(per[:, 1], torch.tensor([0.0, 0.2, 0.5, 1.0, 1.0]))  # the fast one is held back
    assert not pce[:, 1].any()
    assert not per[:, 0].any()


@pytest.mark.parametrize(
    ("s", "pce", "per"),
    [
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.0, 4.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]),
        ([0.0, 3.0, 4.0], [1.0, 1 / 3, 0.0], [0.0, 1.0, 1.0]),
        ([5.0], [0.0], [0.0]),
        ([1e-30, 1e30], [1.0, 0.0], [0.0, 1.0]),
    ],
)
def test_pmr_weights_at_zero_are_the_limits(s, pce, per) -> None:
    actual = pmr_weights(torch.tensor(s))
    torch.testing.assert_close(actual, (torch.tensor(pce), torch.tensor(per)))


def test_a_nan_score_is_not_hidden() -> None:
    pce, per = pmr_weights(torch.tensor([1.0, float("nan"), 2.0]))
    assert pce.isnan().all()
    assert per.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_pmr_weights_are_detached_and_in_float32_or_wider(dtype: torch.dtype) -> None:
    s = torch.tensor([1.0, 1.25, 3.0], dtype=dtype, requires_grad=True)
    for weight, expected in zip(pmr_weights(s), ([1.0, 1.0, 0.0], [0.0, 0.25, 1.0]), strict=True):
        assert not weight.requires_grad
        assert torch.equal(weight, torch.tensor(expected, dtype=torch.promote_types(dtype, torch.float32)))


def test_full_graph_compile_equals_eager() -> None:
    s = torch.tensor([0.0, 1.0, 1.5])
    for actual, expected in zip(fullgraph(pmr_weights)(s), pmr_weights(s), strict=True):
        torch.testing.assert_close(actual, expected)


COEFFICIENTS = [
    lambda r: ogm_coefficient(r, 0.8),
    lambda r: ogm_coefficient(r, 0.8, continuous=True),
    lambda r: two_sided_coefficient(r, 0.8, ceiling=3.0),
    lambda r: opm_probability(r, 0.5, 0.5),
    suppress_best_coefficient,
    lambda r: arl_coefficient(r, r, 8.0),
    lambda r: discrepancy_ratio(r, reference="pairwise"),
]


@pytest.mark.compiles
@pytest.mark.parametrize("function", COEFFICIENTS)
def test_coefficients_compile_in_one_graph(function) -> None:
    r = torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(fullgraph(function)(r), function(r))


@pytest.mark.compiles
def test_a_score_compiles_in_one_graph() -> None:
    logits, labels = {"audio": torch.randn(4, 3), "video": torch.randn(4, 3)}, torch.tensor([0, 1, 2, 1])
    torch.testing.assert_close(fullgraph(true_class_score)(logits, labels), true_class_score(logits, labels))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_scores_are_detached_and_in_float32_or_wider(dtype: torch.dtype) -> None:
    o = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    s = true_class_score({"audio": o, "video": o * 2}, torch.tensor([0, 1, 2, 1]))
    assert not s.requires_grad
    assert s.dtype == torch.promote_types(dtype, torch.float32)
    expected = (
        torch.stack([o, o * 2], 1)
        .double()
        .softmax(-1)
        .gather(-1, torch.tensor([0, 1, 2, 1])[:, None, None].expand(4, 2, 1))
    )
    torch.testing.assert_close(s.double(), expected.squeeze(-1).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: OGM(0.8), lambda: MLB(), lambda: AGM(2), lambda: CGGM(["audio", "video"])])
def test_a_modulator_resumes_from_its_state(make) -> None:
    def ask(each, step: int):
        g = torch.Generator().manual_seed(step)
        if isinstance(each, CGGM):
            k = each({"audio": torch.rand((), generator=g), "video": torch.rand((), generator=g)})
        else:
            logits = {m: torch.randn(4, 3, generator=g) for m in ("audio", "video")}
            k = each(logits, torch.tensor([0, 1, 2, 1]))
        return torch.stack(list(k.values()))

    first = make()
    for step in range(3):
        ask(first, step)
    again = make()
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    copied, pickled = copy.deepcopy(first), pickle.loads(pickle.dumps(first))
    expected = ask(first, 3)
    for each in (again, copied, pickled):
        assert torch.equal(ask(each, 3), expected)


def test_a_window_of_accuracies_resumes() -> None:
    first, again = (MSLR({"audio": 0.9, "video": 1.1}) for _ in range(2))
    first({"audio": 0.2, "video": 0.3})
    again.load_state_dict(first.state_dict())
    assert first({"audio": 0.3, "video": 0.3}) == again({"audio": 0.3, "video": 0.3})


# --- every value by hand, in float64; a batch of 5, three modalities, four classes ---

NAMES = ("audio", "video", "text")
HERE, GONE = True, False
nan, inf = math.nan, math.inf


def wide(x: object) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def drawn(seed: int = 0, rows: int = 5, columns: int = 4) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(rows, columns, generator=g, dtype=torch.float64) for m in NAMES}


def close(actual: object, expected: object) -> None:
    if isinstance(actual, dict):
        actual = torch.stack(list(actual.values()))
    torch.testing.assert_close(actual, wide(expected), rtol=1e-12, atol=1e-15, equal_nan=True)


def close32(actual: dict[str, Tensor], expected: dict[str, float]) -> None:
    """Of methods that answer in float32."""
    assert list(actual) == list(expected)
    for m, k in actual.items():
        torch.testing.assert_close(k, torch.tensor(expected[m]), rtol=1e-5, atol=1e-6, equal_nan=True)


def softmax(row: list[float]) -> list[float]:
    return [math.exp(x) / sum(map(math.exp, row)) for x in row]


LABELS = torch.tensor([0, 3, 1, 2, 3])


def test_scores_of_the_true_class_by_hand() -> None:
    logits = drawn()
    p = [[softmax(o[i].tolist())[LABELS[i]] for o in logits.values()] for i in range(5)]
    close(true_class_score(logits, LABELS), p)
    close(cross_entropy_score(logits, LABELS), [[-math.log(x) for x in row] for row in p])


def test_entropy_score_by_hand() -> None:
    logits = drawn(1)
    expected = [[-sum(p * math.log(p) for p in softmax(o[i].tolist())) for o in logits.values()] for i in range(5)]
    close(entropy_score(logits), expected)
    close(entropy_score(logits, LABELS), expected)


def test_correct_score_is_one_where_the_largest_logit_is_the_true_one() -> None:
    logits = drawn(2)
    rows = [[o[i].tolist() for o in logits.values()] for i in range(5)]
    expected = [[float(row.index(max(row)) == y) for row in of] for of, y in zip(rows, LABELS.tolist(), strict=True)]
    assert 0 < sum(map(sum, expected)) < 15
    close(correct_score(logits, LABELS), expected)
    assert correct_score({"a": torch.tensor([[0, 1.0]])}, torch.tensor([1])).dtype == torch.float32
    logits["video"][1, 2] = nan
    expected[1][1] = nan
    close(correct_score(logits, LABELS), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
def test_multilabel_score_is_the_mean_over_the_labels_that_hold_and_over_all_where_none_does(dtype) -> None:
    logits = drawn(3)
    tags = [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]]
    expected = []
    for i, row in enumerate(tags):
        expected.append([])
        for o in logits.values():
            p = [1 / (1 + math.exp(-x)) for x in o[i].tolist()]
            held = [x for x, tag in zip(p, row, strict=True) if tag] or [1 - x for x in p]
            expected[-1].append(sum(held) / len(held))
    close(multilabel_score(logits, torch.tensor(tags, dtype=dtype)), expected)


def errors_of(predictions: dict[str, Tensor], target: Tensor) -> list[list[float]]:
    rows = target.tolist()
    return [
        [sum((p - t) ** 2 for p, t in zip(o[i].tolist(), row, strict=True)) / len(row) for o in predictions.values()]
        for i, row in enumerate(rows)
    ]


def test_squared_error_score_is_the_mean_over_the_outputs() -> None:
    predictions, target = drawn(4), drawn(5)["text"]
    close(squared_error_score(predictions, target), errors_of(predictions, target))
    one = {"audio": wide([[1.0, 2.0]])}
    close(squared_error_score(one, wide([[3.0, 2.0]])), [[2.0]])


def test_regression_score_is_a_gaussian_of_the_error() -> None:
    predictions, target = drawn(4), drawn(5)["text"]
    errors = errors_of(predictions, target)
    for scale in (0.5, 1.0, 3.0):
        expected = [[math.exp(-e / (2 * scale**2)) for e in row] for row in errors]
        close(regression_score(predictions, target, scale=scale), expected)
    close(regression_score(predictions, target), [[math.exp(-e / 2) for e in row] for row in errors])
    close(regression_score({"audio": target}, target), [[1.0]] * 5)


def test_confidence_score_falls_with_uncertainty_at_its_rate() -> None:
    u = {"audio": wide([0.0, 0.5]), "video": wide([1.0, 2000.0]), "text": wide([0.25, 3.0])}
    columns = [[0.0, 1.0, 0.25], [0.5, 2000.0, 3.0]]
    close(confidence_score(u), [[math.exp(-x) for x in row] for row in columns])
    close(confidence_score(u, rate=0.5), [[math.exp(-x / 2) for x in row] for row in columns])
    close(confidence_score(u, None, rate=0.5, log=True), [[-x / 2 for x in row] for row in columns])
    assert confidence_score({"a": torch.ones(2, dtype=torch.bfloat16, requires_grad=True)}).dtype == torch.float32


@pytest.mark.parametrize("score", [correct_score, cross_entropy_score, entropy_score, true_class_score])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_score_of_halves_is_detached_and_in_float32(score, dtype: torch.dtype) -> None:
    logits = {m: o.to(dtype).requires_grad_() for m, o in drawn().items()}
    found = score(logits, LABELS.to(torch.uint8))
    assert found.shape == (5, 3)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(found, score({m: o.float() for m, o in logits.items()}, LABELS))


# ratios


def over(a: float, b: float) -> float:
    return 1.0 if a == b == 0 else a / b if b else inf


def ratio_by_hand(row: list[float], reference: str, here: list[bool]) -> list[float]:
    found = []
    for m, own in enumerate(row):
        others = [s for j, s in enumerate(row) if j != m and here[j]]
        if not here[m] or not others:
            found.append(1.0)
        elif reference == "pairwise":
            found.append(sum(over(own, s) for s in others) / len(others))
        else:
            found.append(over(own, min(others) if reference == "min" else sum(others) / len(others)))
    return found


SCORES = [[0.8, 0.4, 0.2], [0.1, 0.7, 0.5], [0.0, 0.3, 0.9], [0.0, 0.0, 0.6], [0.25, 0.25, 0.25]]
PRESENT = [[HERE, HERE, HERE], [HERE, GONE, HERE], [GONE, GONE, HERE], [HERE, HERE, HERE], [GONE, GONE, GONE]]


@pytest.mark.parametrize("reference", ["others", "pairwise", "min"])
def test_ratios_of_each_sample_by_hand(reference) -> None:
    everywhere = [ratio_by_hand(row, reference, [HERE] * 3) for row in SCORES]
    close(discrepancy_ratio(wide(SCORES), reference=reference), everywhere)
    for row, expected in zip(SCORES, everywhere, strict=True):
        close(discrepancy_ratio(wide(row), reference=reference), expected)
    some_there = [ratio_by_hand(row, reference, here) for row, here in zip(SCORES, PRESENT, strict=True)]
    close(discrepancy_ratio(wide(SCORES), reference=reference, present=torch.tensor(PRESENT)), some_there)


def test_the_others_are_the_reference_unless_another_is_named() -> None:
    close(discrepancy_ratio(wide(SCORES)), [ratio_by_hand(row, "others", [HERE] * 3) for row in SCORES])


def test_ratios_to_a_target_by_hand() -> None:
    target = [0.5, 0.0, 2.0]
    expected = [[over(s, t) for s, t in zip(row, target, strict=True)] for row in SCORES]
    close(discrepancy_ratio(wide(SCORES), reference=wide(target)), expected)
    close(discrepancy_ratio(wide(SCORES[0]), reference=wide(target)), expected[0])
    expected = [
        [x if here else 1.0 for x, here in zip(row, places, strict=True)]
        for row, places in zip(expected, PRESENT, strict=True)
    ]
    close(discrepancy_ratio(wide(SCORES), reference=wide(target), present=torch.tensor(PRESENT)), expected)


@pytest.mark.parametrize("reference", ["others", "pairwise", "min"])
def test_scores_that_are_equal_or_tie_have_equal_ratios_to_the_last_bit(reference) -> None:
    g = torch.Generator().manual_seed(0)
    assert torch.equal(discrepancy_ratio(torch.full((7,), 0.1), reference=reference), torch.ones(7))
    scores = torch.rand(40, 7, generator=g)
    scores[:, 5] = scores[:, 1]
    ratio = discrepancy_ratio(scores, reference=reference)
    assert torch.equal(ratio[:, 5], ratio[:, 1])


def test_an_infinite_score_leaves_nothing_to_those_behind() -> None:
    for reference in ("others", "pairwise", "min"):
        assert discrepancy_ratio(torch.tensor([1.0, inf]), reference=reference).tolist() == [0.0, inf]
    assert discrepancy_ratio(torch.tensor([1.0, inf, inf]))[0] == 0


# coefficients


RATIOS = [[0.0, 0.5, 1.0], [1.25, 2.0, inf]]


@pytest.mark.parametrize("alpha", [0.0, 0.4, 2.5])
def test_ogm_coefficient_by_hand(alpha: float) -> None:
    def slowed(r: float, start: float) -> float:
        return 1.0 if r <= 1 else 1 - math.tanh(alpha * min(r - start, 1e300))

    close(ogm_coefficient(wide(RATIOS), alpha), [[slowed(r, 0) for r in row] for row in RATIOS])
    close(ogm_coefficient(wide(RATIOS), alpha, continuous=True), [[slowed(r, 1) for r in row] for row in RATIOS])


@pytest.mark.parametrize("alpha", [0.0, 0.4, 2.5])
@pytest.mark.parametrize("ceiling", [1.0, 1.5, 4.0])
def test_two_sided_coefficient_by_hand(alpha: float, ceiling: float) -> None:
    def moved(behind: float, top: float) -> float:
        change = math.tanh(alpha * min(behind - 1, 1e300))
        return 1 + ((top - 1) * change if behind > 1 else change)

    table = wide(RATIOS)
    close(two_sided_coefficient(table, alpha, ceiling=ceiling, inverse=False), [
        [moved(r, ceiling) for r in row] for row in RATIOS
    ])  # fmt: skip
    close(two_sided_coefficient(table, alpha, ceiling=ceiling), [
        [moved(1 / r if r else inf, ceiling) for r in row] for row in RATIOS
    ])  # fmt: skip
    close(two_sided_coefficient(table, alpha), [[moved(1 / r if r else inf, 2.0) for r in row] for row in RATIOS])


@pytest.mark.parametrize(("base", "strength"), [(0.0, 0.5), (0.3, 0.0), (0.3, 0.5), (0.7, 5.0), (1.0, 0.5)])
def test_opm_probability_by_hand(base: float, strength: float) -> None:
    def dropped(r: float) -> float:
        return min(base * (1 + strength * math.tanh(r - 1)), 1.0) if r > 1 else 0.0

    close(opm_probability(wide(RATIOS), base, strength), [[dropped(r) for r in row] for row in RATIOS])


def test_suppress_best_coefficient_by_hand() -> None:
    rows = [[0.9, 1.5, 1.1], [1.25, 1.25, 0.5], [1.0, 1.0, 1.0], [0.5, nan, 2.0], [1.0, 0.5, 0.9], [0.2, 0.1, inf]]
    expected = [[1, 0, 1], [1, 1, 1], [1, 1, 1], [nan] * 3, [1, 1, 1], [1, 1, 0]]
    found = suppress_best_coefficient(wide(rows))
    torch.testing.assert_close(found.double(), wide(expected), equal_nan=True)
    assert suppress_best_coefficient(wide([1.5, 0.8])).tolist() == [0, 1]
    assert suppress_best_coefficient(wide([1.0])).tolist() == [1]


def test_behind_coefficient_is_the_ratio_up_to_one() -> None:
    close(behind_coefficient(wide(RATIOS)), [[min(r, 1.0) for r in row] for row in RATIOS])


def test_agm_coefficient_by_hand() -> None:
    ratio = [0.5, 1.0, 2.0, -19.0]
    for alpha, cap in ((0.0, 0.0), (1.5, 0.0), (0.5, 0.25), (0.7, 10.0)):
        close(agm_coefficient(wide(ratio), alpha, cap=cap), [math.exp(alpha * min(1 - r, cap)) for r in ratio])
    close(agm_coefficient(wide(ratio), 0.7), [math.exp(0.7 * min(1 - r, 10)) for r in ratio])


@pytest.mark.parametrize("here", [[HERE, HERE, HERE], [HERE, HERE, GONE], [GONE, HERE, HERE]])
def test_agm_ratio_is_of_the_errors_of_those_that_are_there(here: list[bool]) -> None:
    errors = [0.2, 1.0, 0.7]
    expected = []
    for m, own in enumerate(errors):
        others = [e for j, e in enumerate(errors) if j != m and here[j]]
        expected.append(math.exp(sum(others) / len(others) - own) if here[m] else 1.0)
    close(agm_ratio(wide(errors), present=torch.tensor(here)), expected)


@pytest.mark.parametrize("here", [[HERE, GONE, GONE], [GONE, GONE, GONE]])
def test_agm_ratio_is_one_where_there_is_no_other(here: list[bool]) -> None:
    close(agm_ratio(wide([0.2, 1.0, nan]), present=torch.tensor(here)), [1.0, 1.0, 1.0])


@pytest.mark.parametrize("here", [[HERE, HERE, HERE], [HERE, HERE, GONE], [GONE, HERE, GONE]])
@pytest.mark.parametrize("temperature", [0.0, 3.0, 8.0])
def test_arl_coefficient_by_hand(here: list[bool], temperature: float) -> None:
    entropy, loudness = [0.1, 0.9, 0.25], [2.0, 0.5, 1.0]
    there = [m for m in range(3) if here[m]]
    h = {m: max(entropy[m] / sum(entropy[j] for j in there), 0.3) for m in there}
    w = {m: 1 / h[m] / sum(1 / h[j] for j in there) for m in there}
    c = {m: loudness[m] / sum(loudness[j] for j in there) for m in there}
    others = {m: sum(c[j] for j in there if j != m) / max(len(there) - 1, 1) for m in there}
    weight = dict(zip(there, softmax([temperature * others[m] * w[m] for m in there]), strict=True))
    expected = [1 + weight.get(m, 0.0) for m in range(3)]
    close(arl_coefficient(wide(entropy), wide(loudness), temperature, present=torch.tensor(here)), expected)
    if all(here):
        close(arl_coefficient(wide(entropy), wide(loudness), temperature), expected)
    if temperature == 8:
        close(arl_coefficient(wide(entropy), wide(loudness), present=torch.tensor(here)), expected)


def test_arl_coefficient_without_any_entropy_has_equal_shares() -> None:
    c = [0.5, 0.3, 0.2]
    weight = softmax([8 * (1 - x) / 2 / 3 for x in c])
    close(arl_coefficient(wide([0.0, 0.0, 0.0]), wide([5.0, 3.0, 2.0])), [1 + x for x in weight])
    two = torch.tensor([HERE, HERE, GONE])
    weight = softmax([8 * 0.375 / 2, 8 * 0.625 / 2])
    close(arl_coefficient(wide([0, 0, inf]), wide([5.0, 3.0, nan]), present=two), [1 + weight[0], 1 + weight[1], 1.0])
    close(arl_coefficient(wide([0, 0, 0]), wide([0, 0, 0]), present=torch.tensor([GONE] * 3)), [1.0, 1.0, 1.0])


@pytest.mark.parametrize("scale", [0.5, 1.3])
def test_cggm_coefficient_by_hand(scale: float) -> None:
    for gains, kept in (
        ([0.06, 0.02, 0.0], None),
        ([0.5, -0.4, 0.0], [0.0, 1.0, 1.0]),
        ([-0.1, 0.0, 0.1], [2 / 3] * 3),
    ):
        total = sum(gains) + 1e-8
        share = [(total - d) / total for d in gains]
        close(cggm_coefficient(wide(gains), scale), [scale * x for x in kept or share])
        if sum(gains) > 1e-3:
            close(cggm_coefficient(wide(gains), scale, released=True), [scale * x for x in share])
    close(cggm_coefficient(wide([-0.1, -0.3]), scale), [scale / 2] * 2)
    close(cggm_coefficient(wide([1e-6, 0.0]), scale), [scale / 2] * 2)
    total = 2e-6 + 1e-8
    close(cggm_coefficient(wide([2e-6, 0.0]), scale), [scale * (total - 2e-6) / total, scale])
    close(cggm_coefficient(wide([-0.1]), scale), [0.0])


def test_cggm_coefficient_has_bounds_and_the_scale_of_the_paper_unless_told() -> None:
    close(cggm_coefficient(wide([0.5, -0.4, 0.0])), [0.0, 1.3, 1.3])


def test_miles_coefficient_by_hand() -> None:
    u = {"audio": 0.75, "video": 0.25, "text": 0.0}  # gaps 0.625, −0.125, −0.5
    close32(miles_coefficient(u), {"audio": 0.5, "video": 1.0, "text": 1.0})
    close32(miles_coefficient(u, factor=0.0), {"audio": 0.0, "video": 1.0, "text": 1.0})
    close32(miles_coefficient(u, threshold=0.625), {"audio": 1.0, "video": 1.0, "text": 1.0})
    close32(miles_coefficient(u, threshold=0.624, factor=0.3), {"audio": 0.3, "video": 1.0, "text": 1.0})
    close32(miles_coefficient({"audio": 0.46, "video": 0.25}), {"audio": 0.5, "video": 1.0})
    close32(miles_coefficient({"audio": 0.44, "video": 0.25}), {"audio": 1.0, "video": 1.0})
    close32(miles_coefficient({"audio": 0.25, "video": 0.26}, threshold=0.0), {"audio": 1.0, "video": 0.5})
    close32(miles_coefficient({"audio": nan, "video": 0.26}), {"audio": nan, "video": nan})


@pytest.mark.parametrize("used", [0.0, 0.9])
def test_miles_leaves_a_modality_that_is_alone(used: float) -> None:
    close32(miles_coefficient({"audio": used}, threshold=0.0), {"audio": 1.0})


@pytest.mark.parametrize("accuracy", [0.8, torch.tensor(0.8)])
def test_utilisation_is_the_part_of_the_accuracy_that_goes(accuracy) -> None:
    without = {"audio": 0.6, "video": torch.tensor(0.2), "text": 0.9}
    close32(utilisation(accuracy, without), {"audio": 0.25, "video": 0.75, "text": -0.125})


def test_pdmp_coefficient_by_hand() -> None:
    best = {"audio": 0.4, "video": torch.tensor(0.7, dtype=torch.float64), "text": 0.7}
    close32(pdmp_coefficient(best, dominant=1.4, rest=0.7), {"audio": 0.7, "video": 1.4, "text": 1.4})
    close32(pdmp_coefficient({"audio": 0.1, "video": 0.2}, dominant=0.0, rest=3.0), {"audio": 3.0, "video": 0.0})
    close32(pdmp_coefficient({"audio": 0.1, "video": 0.2}, dominant=1.0, rest=0.0), {"audio": 0.0, "video": 1.0})
    close32(pdmp_coefficient({"audio": nan, "video": 0.2}, dominant=1.0, rest=0.5), {"audio": nan, "video": nan})
    away = pdmp_coefficient({"audio": 0.1, "video": torch.tensor(0.2, device="meta")}, dominant=1.0, rest=0.5)
    assert {k.device.type for k in away.values()} == {"meta"}


def test_pmr_weights_by_hand() -> None:
    s = [0.5, 0.8, 0.6, 2.0]
    pce, per = pmr_weights(wide(s))
    close(pce, [min(2.0 / x - 1, 1.0) if x < 2 else 0.0 for x in s])
    close(per, [min(x / 0.5 - 1, 1.0) for x in s])
    pce, per = pmr_weights(wide(s), released=True)
    close(pce, [1.0, 1.0, 1.0, 0.0])
    close(per, [0.0] * 4)
    close(pmr_weights(wide([1.0, 1.0]), released=True)[0], [0.0, 0.0])
    close(pmr_weights(wide([1.0, nan]), released=True)[0], [nan, nan])
    assert pmr_weights(torch.ones(2, dtype=torch.bfloat16), released=True)[0].dtype == torch.float32


# methods


def found_by(method: Any, *inputs: Any, **options: Any) -> Modulated:
    """What a method tells its hooks."""
    seen = []
    handle = method.register_step_hook(seen.append)
    k = method(*inputs, **options)
    handle.remove()
    (found,) = seen
    assert list(k) == list(found.names) == list(inputs[0])
    torch.testing.assert_close(torch.stack(list(k.values()), -1), found.coefficients, rtol=0, atol=0, equal_nan=True)
    return found


PARTLY = {"audio": torch.tensor([True, False, True, True, False]), "text": torch.zeros(5, dtype=torch.bool)}


def means_by_hand(table: list[list[float]], present: dict[str, Tensor]) -> tuple[list[float], list[bool]]:
    """Over the samples that are there; 0 where none is."""
    means, here = [], []
    for m, name in enumerate(NAMES):
        rows = [row[m] for i, row in enumerate(table) if name not in present or present[name][i]]
        means.append(sum(rows) / max(len(rows), 1))
        here.append(bool(rows))
    return means, here


@pytest.mark.parametrize("present", [{}, PARTLY])
@pytest.mark.parametrize("reference", ["others", "pairwise", "min"])
def test_ogm_and_opm_by_hand_for_three(reference, present) -> None:
    logits = drawn(6)
    means, here = means_by_hand(true_class_score(logits, LABELS).tolist(), present)
    r = ratio_by_hand(means, reference, here)
    found = found_by(OGM(0.6, reference=reference), logits, LABELS, present=present)
    close(found.scores, means)
    close(found.ratios, r)
    close(found.coefficients, [1 - math.tanh(0.6 * x) if x > 1 else 1.0 for x in r])
    k = OGM(0.6, reference=reference, continuous=True)(logits, LABELS, present=present)
    close(k, [1 - math.tanh(0.6 * (x - 1)) if x > 1 else 1.0 for x in r])
    k = OPM(0.3, 2.0, reference=reference)(logits, LABELS, present=present)
    close(k, [0.3 * (1 + 2 * math.tanh(x - 1)) if x > 1 else 0.0 for x in r])


def test_methods_have_the_defaults_of_their_papers() -> None:
    logits = drawn(6)
    means, here = means_by_hand(true_class_score(logits, LABELS).tolist(), {})
    pairs, others = (ratio_by_hand(means, reference, here) for reference in ("pairwise", "others"))
    close(OGM(0.6)(logits, LABELS), [1 - math.tanh(0.6 * x) if x > 1 else 1.0 for x in pairs])
    close(OPM()(logits, LABELS), [0.5 * (1 + 0.5 * math.tanh(x - 1)) if x > 1 else 0.0 for x in pairs])
    close(MLB()(logits, LABELS), [1 + math.tanh(0.8 * (1 / x - 1)) for x in others])
    assert [float(k) for k in SMP()(logits, LABELS).values()] == [float(x < max(others)) for x in others]
    assert ARL().temperature == 8
    assert ARL().released is False
    assert CGGM(NAMES).scale == 1.3
    assert CGGM(NAMES).released is False
    assert MSLR({"audio": 1.0}).window == 5


def test_bounds_of_methods_are_allowed() -> None:
    logits = drawn(6)
    for alpha_of_none in (OGM(0.0, continuous=True), MLB(0.0), MLB(0.0, ceiling=1.0)):
        close(alpha_of_none(logits, LABELS), [1.0] * 3)
    close(OPM(0.0)(logits, LABELS), [0.0] * 3)
    assert max(OPM(1.0, 0.0)(logits, LABELS).values()) == 1
    close(ARL(0.0)(logits, LABELS), [4 / 3] * 3)
    close(AGM(3, 0.0, cap=0.0)(logits, LABELS), [1.0] * 3)
    close(AGM(1)({"audio": logits["audio"]}, LABELS), [1.0])
    close(EpistemicModulation(0.5)({"audio": wide([3.0])}), [[1.0]])


def test_mlb_by_hand_for_classes_and_for_errors() -> None:
    logits, target = drawn(6), drawn(7)["audio"]
    means, here = means_by_hand(true_class_score(logits, LABELS).tolist(), PARTLY)
    behind = [1 / r for r in ratio_by_hand(means, "others", here)]
    change = [math.tanh(0.5 * (x - 1)) for x in behind]
    found = MLB(0.5, ceiling=3.0)(logits, LABELS, present=PARTLY)
    close(found, [1 + (2 * c if c > 0 else c) for c in change])
    means, here = means_by_hand(errors_of(logits, target), PARTLY)
    change = [math.tanh(0.5 * (x - 1)) for x in ratio_by_hand(means, "others", here)]
    found = MLB(0.5, ceiling=3.0, task="regression")(logits, target, present=PARTLY)
    close(found, [1 + (2 * c if c > 0 else c) for c in change])


@pytest.mark.parametrize("present", [{}, PARTLY])
@pytest.mark.parametrize("released", [False, True])
def test_arl_by_hand_for_three(present, released: bool) -> None:
    logits = drawn(8)
    entropy, here = means_by_hand(entropy_score(logits).tolist(), present)
    loud = [[sum(map(abs, o[i].tolist())) / 4 for o in logits.values()] for i in range(5)]
    loudness, _ = means_by_hand(loud, present)
    found = found_by(ARL(3.0, released=released), logits, LABELS, present=present)
    assert found.names == NAMES
    close(found.scores, entropy)
    close(found.ratios, ratio_by_hand(entropy, "others", here))
    expected = arl_coefficient(wide(entropy), wide(loudness), 3.0, present=torch.tensor(here))
    if released:
        expected = torch.tensor([1 + 1 / sum(here) if there else 1.0 for there in here])
    torch.testing.assert_close(found.coefficients.double(), expected.double(), rtol=1e-6 if released else 1e-12, atol=0)


def test_arl_asks_for_no_labels() -> None:
    close(ARL()(drawn(8)), [k.item() for k in ARL()(drawn(8), LABELS).values()])


@pytest.mark.parametrize("present", [{}, {"audio": PARTLY["audio"], "video": torch.tensor([True] * 4 + [False])}])
@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_epistemic_modulation_by_hand_for_three(present, rate: float) -> None:
    u = {m: x[:, 0].abs() for m, x in drawn(9).items()}
    expected = []
    for i in range(5):
        row = [u[m][i].item() for m in NAMES]
        here = [m not in present or bool(present[m][i]) for m in NAMES]
        r = ratio_by_hand([math.exp(-rate * x) for x in row], "others", here)
        expected.append([min(x, 1.0) for x in r])
    k = EpistemicModulation(rate)(u, present=present)
    table = torch.stack(list(k.values()), 1)
    torch.testing.assert_close(table, wide(expected), rtol=1e-14, atol=0)
    if rate == 1:
        assert torch.equal(torch.stack(list(EpistemicModulation()(u, present=present).values()), 1), table)


def test_epistemic_modulation_leaves_a_sample_that_one_modality_has_alone() -> None:
    gone = torch.tensor([False, True])
    k = EpistemicModulation()({"audio": wide([3.0, 3.0]), "video": wide([1.0, 1.0])}, present={"video": gone})
    close(k, [[1.0, math.exp(-2)], [1.0, 1.0]])


def test_the_ratio_of_confidence_is_one_where_there_is_no_other() -> None:
    present = torch.tensor([[True, False, False], [False, False, False]])
    close(confidence_ratio(wide([[-1.0, -2.0, -3.0]] * 2), present=present), [[1.0] * 3] * 2)


def test_a_modulation_of_each_sample_keeps_them_apart() -> None:
    logits = drawn(6)
    each = Modulation(true_class_score, discrepancy_ratio, behind_coefficient, per_sample=True)
    found = found_by(each, logits, LABELS, present=PARTLY)
    scores = true_class_score(logits, LABELS).tolist()
    here = [[bool(PARTLY[m][i]) if m in PARTLY else True for m in NAMES] for i in range(5)]
    ratios = [ratio_by_hand(row, "others", there) for row, there in zip(scores, here, strict=True)]
    close(found.ratios, ratios)
    close(found.coefficients, [[min(x, 1.0) for x in row] for row in ratios])
    assert each.per_sample
    assert not Modulation(true_class_score, discrepancy_ratio, behind_coefficient).per_sample


def test_every_hook_hears_until_it_is_removed() -> None:
    ogm, first, second = OGM(0.8), [], []
    handles = [ogm.register_step_hook(heard.append) for heard in (first, second)]
    for handle in handles:
        ogm(drawn(), LABELS)
        handle.remove()
    ogm(drawn(), LABELS)
    assert [len(first), len(second)] == [1, 2]


# methods that remember


def logits_with(errors: dict[str, float]) -> dict[str, Tensor]:
    """One sample of label 0, with these cross-entropies."""
    return {m: wide([[0.0, math.log(math.expm1(e))]]) if e < 50 else wide([[0.0, e]]) for m, e in errors.items()}


def test_agm_by_hand_where_modalities_come_and_go() -> None:
    label, gone = torch.tensor([0]), torch.tensor([False])
    agm = AGM(3, 0.7, cap=0.4).double()
    steps = [
        {"audio": 0.2, "video": 1.0, "text": 0.7},
        {"audio": 1.5, "text": 0.3},
        {"audio": 0.4, "video": 2.0},
        {"video": 0.9},
        {"audio": 0.1, "video": 0.3, "text": 2.5},
    ]

    def ratios(errors: dict[str, float]) -> dict[str, float]:
        found = {}
        for m, own in errors.items():
            others = [e for j, e in errors.items() if j != m]
            found[m] = math.exp(sum(others) / len(others) - own) if others else 1.0
        return found

    for t, errors in enumerate(steps):
        seen = {m: [step[m] for step in steps[: t + 1] if m in step] for m in NAMES}
        now, usual = ratios(errors), ratios({m: sum(seen[m]) / len(seen[m]) for m in errors})
        expected = [math.exp(0.7 * min(usual[m] - now[m], 0.4)) if m in errors else 1.0 for m in NAMES]
        logits = logits_with({m: errors.get(m, 9.0) for m in NAMES})
        found = found_by(agm, logits, label, present={m: gone for m in NAMES if m not in errors})
        torch.testing.assert_close(found.coefficients, wide(expected), rtol=1e-9, atol=0)
        torch.testing.assert_close(found.scores, wide([errors.get(m, 0.0) for m in NAMES]), rtol=1e-9, atol=0)
    assert agm.state_dict()["ratio.steps"].tolist() == [4, 4, 3]
    assert agm.state_dict()["ratio.steps"].dtype == torch.int64
    torch.testing.assert_close(agm.state_dict()["ratio.total"], wide([2.2, 4.2, 3.5]), rtol=1e-9, atol=0)


def test_agm_that_has_seen_nothing_compares_with_level_modalities() -> None:
    r = [math.exp(0.3), math.exp(-0.3)]
    agm = AGM(2, 0.7).double().eval()
    close(found_by(agm, logits_with({"audio": 0.2, "video": 0.5}), torch.tensor([0])).ratios, r)
    k = agm(logits_with({"audio": 0.2, "video": 0.5}), torch.tensor([0]))
    close(k, [math.exp(0.7 * (1 - x)) for x in r])
    assert agm.state_dict()["ratio.steps"].tolist() == [0, 0]
    agm.ratio.steps[0], agm.ratio.total[0] = 1, 9.0  # one that is known has nobody to be compared with
    close(agm(logits_with({"audio": 0.2, "video": 0.5}), torch.tensor([0])), [math.exp(0.7 * (1 - x)) for x in r])


def test_agm_has_the_strength_and_the_cap_of_the_paper_unless_told() -> None:
    agm, logits = AGM(2).double().eval(), logits_with({"audio": 0.5, "video": 0.5})
    agm.ratio.total.copy_(wide([0.0, 2.0]))
    agm.ratio.steps.fill_(1)
    close(agm(logits, torch.tensor([0])), [math.exp(math.exp(2) - 1), math.exp(math.exp(-2) - 1)])
    agm.ratio.total.copy_(wide([0.0, 3.0]))
    close(agm(logits, torch.tensor([0]))["audio"], math.exp(10))


@pytest.mark.parametrize("bad", [nan, -inf])
def test_agm_forgets_a_step_that_is_not_finite_and_bounds_an_error_that_is(bad: float) -> None:
    agm, label = AGM(2).double(), torch.tensor([0])
    agm(logits_with({"audio": 0.2, "video": 0.5}), label)
    held = copy.deepcopy(agm.state_dict())
    found = found_by(agm, {"audio": wide([[bad, 0.0]]), "video": wide([[0.0, 0.0]])}, label)
    assert not found.scores[0].isfinite()
    assert all(torch.equal(value, held[name]) for name, value in agm.state_dict().items())
    found = found_by(agm, logits_with({"audio": 60.0, "video": 17.0}), label)
    torch.testing.assert_close(found.scores, wide([8 * math.log(10), 17.0]), rtol=1e-6, atol=0)
    assert agm.state_dict()["ratio.steps"].tolist() == [2, 2]


@pytest.mark.parametrize("released", [False, True])
def test_cggm_compares_with_the_last_accuracies_that_were_finite(released: bool) -> None:
    cggm = CGGM(dict.fromkeys(NAMES, 0), 1.1, released=released).double()
    assert cggm({"audio": nan, "video": 0.3, "text": 0.5})["audio"].isnan()
    assert cggm.state_dict()["calls"].item() == 0
    first = {"text": 0.5, "audio": 0.25, "video": 0.375}
    close(cggm(first), [1.0, 1.0, 1.0])
    assert list(cggm(first)) == list(NAMES)
    assert all(k.isnan() for k in cggm({"audio": 0.5, "video": nan, "text": 0.5}).values())
    k = cggm({"audio": torch.tensor(0.75), "video": torch.tensor(0.25, dtype=torch.float64), "text": 0.5})
    total = 0.375 + 1e-8
    share = [(total - d) / total for d in (0.5, -0.125, 0.0)]
    close(k, [1.1 * (x if released else min(max(x, 0), 1)) for x in share])
    state = cggm.state_dict()
    assert state["calls"].item() == 3
    assert state["calls"].dtype == torch.int64
    close(state["accuracy"], [0.75, 0.25, 0.5])


def test_cggm_of_one_modality_has_nothing_to_share() -> None:
    cggm = CGGM(["audio"])
    assert cggm({"audio": 0.5})["audio"] == 1
    assert cggm({"audio": 0.25})["audio"] == 0


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_mslr_by_hand_over_its_window(window: int) -> None:
    factors, kept = {"audio": 0.0, "video": 0.5, "text": 2.0}, []
    mslr = MSLR(factors, window=window).double()
    history = [(0.5, 0.25, 0.75), (0.25, 0.5, 0.25), (0.5, nan, 0.5), (0.75, 1.0, 0.375), (0.125, 0.125, 1.0)]
    for row in history:
        now = dict(zip(NAMES, row, strict=True))
        last = [*kept, row][-window:]
        expected = [f * row[m] / (sum(each[m] for each in last) / len(last)) for m, f in enumerate(factors.values())]
        k = mslr({m: torch.tensor(now[m]) for m in reversed(NAMES)})
        assert list(k) == list(NAMES)
        close(k, expected)
        kept += [row] if nan not in row else []
    assert mslr.state_dict()["count"].item() == 4
    assert mslr.state_dict()["count"].dtype == torch.int64
    close(mslr.state_dict()["last"], ([(0.0, 0.0, 0.0)] * window + kept)[-window:])


def test_mslr_of_zeros_is_the_factor() -> None:
    mslr = MSLR({"audio": 0.9, "video": 1.1})
    close32(mslr({"audio": 0, "video": 0.5}), {"audio": 0.9, "video": 1.1})
    close32(mslr({"audio": 0.5, "video": 0}), {"audio": 1.8, "video": 0.0})


# logits


@pytest.mark.parametrize("bias", [True, False])
def test_slice_logits_by_hand(bias: bool) -> None:
    torch.manual_seed(0)
    head = nn.Linear(6, 4, bias=bias, dtype=torch.float64)
    features = {m: z[:, :width] for (m, z), width in zip(drawn(10).items(), (3, 1, 2), strict=True)}
    columns = {"audio": range(3), "video": range(3, 4), "text": range(4, 6)}
    shared = (head.bias / 3).tolist() if bias else [0.0] * 4
    for m, part in slice_logits(head, features).items():
        rows = features[m].tolist()
        weights = [[head.weight[c, j].item() for j in columns[m]] for c in range(4)]
        close(part.detach(), [
            [sum(w * x for w, x in zip(weights[c], row, strict=True)) + shared[c] for c in range(4)] for row in rows
        ])  # fmt: skip


def fuse(z: dict[str, Tensor]) -> Tensor:
    assert list(z) == list(NAMES)
    return (z["audio"] + 1) * (z["video"] + 2) * (z["text"] + 3) + z["audio"] ** 2


def fuse_by_hand(a: float, v: float, t: float) -> float:
    return (a + 1) * (v + 2) * (t + 3) + a * a


def test_zero_out_logits_are_the_head_of_one_feature_and_zeros() -> None:
    features = {"audio": wide([[2.0, 0.5]]), "video": wide([[3.0, -1.0]]), "text": wide([[5.0, 4.0]])}
    found = zero_out_logits(fuse, features)
    assert list(found) == list(NAMES)
    close(found["audio"], [[fuse_by_hand(2, 0, 0), fuse_by_hand(0.5, 0, 0)]])
    close(found["video"], [[fuse_by_hand(0, 3, 0), fuse_by_hand(0, -1, 0)]])
    close(found["text"], [[fuse_by_hand(0, 0, 5), fuse_by_hand(0, 0, 4)]])


def test_shapley_logits_by_hand_for_three() -> None:
    a, v, t = 2.0, 3.0, 5.0
    found = shapley_logits(fuse, {"audio": wide([[a]]), "video": wide([[v]]), "text": wide([[t]])})
    alone, whole = (fuse_by_hand(a, 0, 0), fuse_by_hand(0, v, 0), fuse_by_hand(0, 0, t)), fuse_by_hand(a, v, t)
    av, at, vt = fuse_by_hand(a, v, 0), fuse_by_hand(a, 0, t), fuse_by_hand(0, v, t)
    assert list(found) == list(NAMES)
    close(found["audio"], [[(2 * alone[0] + av - alone[1] + at - alone[2] + 2 * (whole - vt)) / 6]])
    close(found["video"], [[(2 * alone[1] + av - alone[0] + vt - alone[2] + 2 * (whole - at)) / 6]])
    close(found["text"], [[(2 * alone[2] + at - alone[0] + vt - alone[1] + 2 * (whole - av)) / 6]])


# --- actuators ---


def branches_of(**gradients: Any) -> Branches:
    """Parameters with these gradients; None for one without."""
    model = nn.ModuleDict()
    for name, each in gradients.items():
        model[name] = nn.ParameterList([nn.Parameter(torch.zeros(2) if g is None else g * 0) for g in each])
        for parameter, g in zip(model[name], each, strict=True):
            parameter.grad = None if g is None else g.clone()
    return Branches(model, {name: name for name in gradients})


def on(branches: Branches, name: str) -> list[Any]:
    return [parameter.grad for parameter in branches[name]]


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_scale_gradients_multiplies_those_that_there_are() -> None:
    made = branches_of(audio=[wide([1.0, 2.0]), None, wide([[3.0]])], video=[wide([5.0])], text=[wide([7.0])])
    k = torch.tensor(0.25, requires_grad=True)
    scale_gradients(made, {"audio": k, "video": 2})
    assert on(made, "audio")[1] is None
    close(on(made, "audio")[0], [0.25, 0.5])
    close(on(made, "audio")[2], [[0.75]])
    close(on(made, "video")[0], [10.0])
    close(on(made, "text")[0], [7.0])
    assert not any(g.requires_grad for g in on(made, "audio") if g is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seeded", [True, False])
def test_noise_is_drawn_tensor_by_tensor_with_the_deviation_of_each(dtype: torch.dtype, seeded: bool) -> None:
    audio = [randn(1, 3, 4, dtype=dtype), randn(2, 1, dtype=dtype)]
    video = [randn(3, 2, dtype=dtype) * 9]
    made, generator = branches_of(audio=audio, video=video, text=audio), torch.Generator().manual_seed(5)
    torch.manual_seed(6 if seeded else 5)
    scale_gradients(made, {"audio": 0.3, "video": 2.0}, noise=True, generator=generator if seeded else None)
    again = torch.Generator().manual_seed(5)
    for name, plain, k in (("audio", audio, 0.3), ("video", video, 2.0)):
        for found, g in zip(on(made, name), plain, strict=True):
            mean = sum(g.flatten().tolist()) / g.numel()
            squares = sum((x - mean) ** 2 for x in g.flatten().tolist())
            deviation = math.sqrt(squares / (g.numel() - 1)) if g.numel() > 1 else 0.0
            expected = k * g + deviation * torch.randn(g.shape, generator=again, dtype=dtype)
            torch.testing.assert_close(found, expected)
    assert all(map(torch.equal, on(made, "text"), audio))


def test_the_released_form_touches_weights_of_convolutions_alone() -> None:
    shapes = ((2,), (2, 3), (2, 3, 1), (2, 3, 1, 2), (2, 3, 1, 2, 1))
    made = branches_of(audio=[torch.ones(shape) for shape in shapes])
    scale_gradients(made, {"audio": 0.5}, released=True)
    assert [g.unique().tolist() for g in on(made, "audio")] == [[1.0], [1.0], [1.0], [0.5], [1.0]]


def test_freeze_drops_the_gradients_of_the_branches_that_are_named() -> None:
    for names in (["audio", "text"], ("audio", "text"), {"audio": 0.0, "video": 0.5, "text": torch.tensor(0.0)}):
        made = branches_of(audio=[wide([1.0]), wide([2.0])], video=[wide([3.0])], text=[wide([4.0])])
        freeze(made, names)
        assert on(made, "audio") == [None, None]
        assert on(made, "text") == [None]
        close(on(made, "video")[0], [3.0])


def test_listeners_hear_what_every_actuator_did() -> None:
    conv, bias = torch.ones(1, 1, 1, 1), torch.ones(1)
    made = branches_of(audio=[conv], video=[conv, bias], text=[bias])
    optimizer = torch.optim.SGD([{"name": "audio", "params": [nn.Parameter(torch.ones(1))]}], lr=0.1)
    z = torch.ones(2, 1, requires_grad=True) * 1
    heard: list[Acted] = []
    with listening(heard.append):
        scale_gradients(made, {"audio": 0.5, "video": 0.25})
        scale_gradients(made, {"audio": 0.5, "text": 0.25}, noise=True)
        scale_gradients(made, {"audio": 0.5, "video": 0.25, "text": 0.125}, released=True)
        scale_gradients(made, {"text": 0.125}, released=True)
        scale_updates(optimizer, {"audio": 0.5})
        modulate({"audio": z}, {"audio": 0.75}, z.sum())
        drop_features({"audio": torch.ones(2, 1)}, {"audio": 0.5})
        drop_features_released({"audio": torch.ones(2, 1)}, torch.ones(2), {"audio": 0.25})
        freeze(made, {"audio": 0.0, "video": 1.0})
    freeze(made, ["video"])
    assert heard == [
        Acted("gradients", {"audio": 0.5, "video": 0.25}),
        Acted("noise", {"audio": 0.5, "text": 0.25}),
        Acted("gradients", {"audio": 0.5}),
        Acted("noise", {"video": 0.25}),
        Acted("updates", {"audio": 0.5}),
        Acted("backward", {"audio": 0.75}),
        Acted("features", {"audio": 0.5}),
        Acted("features", {"audio": 0.25}),
        Acted("freeze", {"audio": 0.0}),
    ]


# at the features


def behind(z_gradient: Tensor, k: Any) -> Tensor:
    """What arrives behind a feature that a loss gives this gradient."""
    leaf = torch.zeros_like(z_gradient, requires_grad=True)
    z = leaf * 1
    loss = (z * z_gradient).sum()
    modulate({"audio": z, "video": leaf}, {"audio": k}, loss)
    loss.backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 4), (3, 1, 2, 2)])
def test_modulate_by_hand_for_the_batch_and_for_each_sample(shape: tuple[int, ...]) -> None:
    g = randn(0, *shape)
    for k in (0.5, 2):
        for same in (k, torch.tensor(k), torch.tensor(float(k), requires_grad=True)):
            close(behind(g, same), (g * k).tolist())
    each = torch.tensor([0.5, 0.0, 2.0], requires_grad=True)
    close(behind(g, each), [(row * k).tolist() for row, k in zip(g, (0.5, 0.0, 2.0), strict=True)])


def test_modulate_of_a_single_number() -> None:
    close(behind(wide(3.0), torch.tensor(0.5)), 1.5)


@pytest.mark.parametrize("off", ["gradients", "loss"])
def test_modulate_does_nothing_where_there_is_nothing_to_do(off: str) -> None:
    leaf = torch.ones(2, requires_grad=True)
    loss = (leaf * 3).sum()
    heard: list[Acted] = []
    with listening(heard.append), torch.set_grad_enabled(off != "gradients"):
        modulate({"audio": leaf}, {"audio": 0.5}, loss if off == "gradients" else loss.detach())
    loss.backward()
    assert leaf.grad.tolist() == [3.0, 3.0]
    assert not heard


def test_a_loss_may_be_a_tensor_of_one_value_or_the_feature_itself() -> None:
    leaf = torch.ones(1, 1, requires_grad=True)
    modulate({"audio": leaf}, {"audio": 0.5}, leaf)
    leaf.backward()
    assert leaf.grad.tolist() == [[0.5]]


def test_in_anomaly_mode_the_coefficient_that_makes_nan_is_named() -> None:
    with torch.autograd.set_detect_anomaly(True):
        close(behind(wide([[1.0, 0.0]]), 0.5), [[0.5, 0.0]])
        for k in (nan, inf, torch.tensor([inf])):
            with pytest.raises(RuntimeError, match=r"^modulate: coefficients\['audio'\]: expected finite numbers"):
                behind(wide([[1.0, 0.0]]), k)
        leaf = torch.ones(2, requires_grad=True)
        loss = (leaf * torch.tensor([inf, 1.0])).sum()
        modulate({"audio": leaf}, {"audio": 0.0}, loss)
        loss.backward()  # what was not finite before is not the coefficient's fault
    assert leaf.grad.isnan().tolist() == [True, False]
    assert behind(wide([[1.0, 0.0]]), inf).isnan().tolist() == [[False, True]]


def test_modulate_finds_features_along_every_path_and_several_outputs_of_one_node() -> None:
    leaf = torch.ones(2, 4, requires_grad=True)
    first, second = (leaf * 1).split(2, dim=1)
    x = first * 2
    loss = (x * x + x + second * 3).sum()
    modulate({"first": first, "second": second, "x": x}, {"first": 0.5, "second": 2.0, "x": 10.0}, loss)
    loss.backward()
    assert leaf.grad.tolist() == [[5 * 2 * 10 * 0.5] * 2 + [6.0] * 2] * 2


class Apart(torch.autograd.Function):
    """Starts passes of its own from losses that it saved, as gradient surgery does."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, roots: list[Tensor]) -> Tensor:
        ctx.save_for_backward(*roots)
        ctx.starts_from_saved = True
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return *gradients, None


def test_modulate_follows_losses_that_start_from_saved_tensors() -> None:
    leaf, other = (torch.ones(2, requires_grad=True) for _ in range(2))
    z, beside = leaf * 2, leaf * 3
    modulate({"audio": z, "leaf": leaf}, {"audio": 0.5, "leaf": 0.5}, Apart.apply(other.sum(), [beside.sum(), z.sum()]))
    alone = torch.ones(1, requires_grad=True)
    modulate({"audio": alone}, {"audio": 0.5}, Apart.apply(other.sum(), [alone]))
    with pytest.raises(ValueError, match=r"found \['audio'\]"):
        modulate({"audio": z}, {"audio": 0.5}, Apart.apply(other.sum(), [beside.sum()]))
    first, second = (leaf * 1).split(1)  # a saved loss that is the second output of its node
    modulate({"audio": second}, {"audio": 0.5}, Apart.apply(other.sum(), [second]))
    with pytest.raises(ValueError, match=r"found \['audio'\]"):
        modulate({"audio": first}, {"audio": 0.5}, Apart.apply(other.sum(), [second]))


# features that are dropped


def draws(seed: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand((), generator=g), torch.rand(rows, columns, generator=g)


FEATURES = {"audio": randn(1, 8, 3), "video": randn(2, 8, 2, 2), "text": randn(3, 8)}
WIDTHS = (3, 4, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("as_tensor", [False, True])
def test_dropping_by_hand(seed: int, as_tensor: bool) -> None:
    q = (0.6, 0.9, 0.7)
    probabilities = {m: wide(x) if as_tensor else x for m, x in zip(NAMES, q, strict=True)}
    found = drop_features(FEATURES, probabilities, generator=torch.Generator().manual_seed(seed))
    left, labels = drop_features_released(
        FEATURES, torch.arange(8), probabilities, generator=torch.Generator().manual_seed(seed)
    )
    keep = [[u >= x for u, x in zip(row, q, strict=True)] for row in draws(seed, 8, 3)[1].tolist()]
    rows = [i for i in range(8) if any(keep[i])]
    assert 0 < len(rows) < 8
    assert labels.tolist() == rows
    product = 0.6 * 0.9 * 0.7
    ours = 1 / (1 - sum(w * (x - product) for w, x in zip(WIDTHS, q, strict=True)) / 8)
    theirs = 1 / (1 - sum(w * x for w, x in zip(WIDTHS, q, strict=True)) / 8)
    for m, name in enumerate(NAMES):
        z = FEATURES[name]
        close(found[name], [(z[i] * ours * (keep[i][m] or i not in rows)).tolist() for i in range(8)])
        close(left[name], [(z[i] * theirs * keep[i][m]).tolist() for i in rows])


@pytest.mark.parametrize("drop", ["ours", "released"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_step_in_which_nothing_is_dropped_changes_nothing(drop: str, share: float) -> None:
    acted = set()
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        if drop == "ours":
            found = drop_features(FEATURES, {"audio": 1.0}, share=share, generator=g)
        else:
            found, labels = drop_features_released(FEATURES, torch.arange(8), {"audio": 1.0}, share=share, generator=g)
            assert labels.tolist() == [*range(8)]
        acts = draws(seed, 8, 3)[0].item() < share
        acted.add(acts)
        scale = 8 / 5 if acts else 1.0
        close(found["audio"], (FEATURES["audio"] * (0 if acts else 1)).tolist())
        close(found["video"], (FEATURES["video"] * scale).tolist())
    assert acted == {0.0: {False}, 0.5: {False, True}, 1.0: {True}}[share]


def test_a_draw_at_the_probability_itself_keeps() -> None:
    acts, keep = draws(4, 1, 2)
    features, g = {"audio": torch.ones(1, 1), "video": torch.ones(1, 1)}, torch.Generator()
    found = drop_features(features, {"audio": keep[0, 0].item()}, generator=g.manual_seed(4))
    assert found["audio"] > 0
    found = drop_features(features, {"audio": 1.0}, share=acts.item(), generator=g.manual_seed(4))
    assert found["audio"] == 1


def test_without_a_generator_the_global_stream_drops() -> None:
    torch.manual_seed(3)
    found = drop_features(FEATURES, {"audio": 0.5})
    expected = drop_features(FEATURES, {"audio": 0.5}, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(found[m], expected[m]) for m in NAMES)


def test_a_modality_without_features_leaves_a_sample_nothing() -> None:
    features = {"audio": torch.ones(30, 3), "video": torch.ones(30, 0)}
    assert torch.equal(drop_features(features, {"audio": 0.5})["audio"], features["audio"])
    left, labels = drop_features_released(
        features, torch.arange(30), {"audio": 0.5}, generator=torch.Generator().manual_seed(0)
    )
    assert 5 < len(labels) < 25
    assert left["video"].shape == (len(labels), 0)
    assert (left["audio"] == 2).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dropped_features_keep_their_dtype_beside_wider_ones(dtype: torch.dtype) -> None:
    found = drop_features({"audio": torch.ones(4, 2, dtype=dtype), "video": torch.ones(4, 2).double()}, {"audio": 0.5})
    assert found["audio"].dtype == dtype
    assert found["video"].dtype == torch.float64


# updates


def optimizer_of(groups: dict[str, Any]) -> torch.optim.SGD:
    made = [{"name": name, "params": [nn.Parameter(torch.zeros(1))], "lr": rate} for name, rate in groups.items()]
    for group in made:
        group["params"][0].grad = torch.ones(1)
    return torch.optim.SGD(made, lr=9.0)


def test_updates_of_branches_with_numbers_and_tensors_as_rates() -> None:
    optimizer = optimizer_of({"audio": 1.0, "video": torch.tensor(2.0), "text": 4.0, "rest": 8.0})
    first, second = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer.add_param_group({"name": "audio", "params": [first], "lr": torch.tensor(16.0)})  # of one branch
    optimizer.add_param_group({"params": [second], "lr": 32.0})  # of none
    first.grad = second.grad = torch.ones(1)
    seen: list[list[Any]] = []
    k = {"audio": torch.tensor(0.5, requires_grad=True), "video": torch.tensor(0.25), "text": 0.125}
    scale_updates(optimizer, k)
    optimizer.register_step_pre_hook(lambda o, *_: seen.append([group["lr"] for group in o.param_groups]))
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(base_rates(o)))
    optimizer.step()
    rates, plain = seen
    assert [float(rate) for rate in rates] == [0.5, 0.5, 0.5, 8.0, 8.0, 32.0]
    assert [type(rate) for rate in rates] == [float, Tensor, float, float, Tensor, float]
    assert [float(rate) for rate in plain] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert [p.item() for group in optimizer.param_groups for p in group["params"]] == [-0.5, -0.5, -0.5, -8, -8, -32]
    assert [float(group["lr"]) for group in optimizer.param_groups] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    optimizer.step()
    assert [float(group["lr"]) for group in optimizer.param_groups] == base_rates(optimizer)
    assert first.item() == -24


@pytest.mark.parametrize("bad", [nan, inf, torch.tensor(-inf)])
def test_a_coefficient_that_is_not_finite_is_an_error_at_the_step(bad) -> None:
    optimizer = optimizer_of({"audio": 1.0, "video": 2.0})
    scale_updates(optimizer, {"audio": 0.5, "video": bad})
    with pytest.raises(RuntimeError, match=r"^coefficients\['video'\]: expected a finite number"):
        optimizer.step()
    assert base_rates(optimizer) == [1.0, 2.0] == [group["lr"] for group in optimizer.param_groups]
    optimizer.step()
    assert [group["params"][0].item() for group in optimizer.param_groups] == [-1.0, -2.0]


def test_one_pair_of_hooks_serves_an_optimizer_for_good() -> None:
    optimizer = optimizer_of({"audio": 1.0})
    for _ in range(3):
        scale_updates(optimizer, {"audio": 0.5})
        optimizer.step()
    assert len(optimizer._optimizer_step_pre_hooks) == len(optimizer._optimizer_step_post_hooks) == 1
    assert optimizer.param_groups[0]["params"][0].item() == -1.5


def test_a_step_of_another_optimizer_is_not_the_one_that_waits() -> None:
    first, second = optimizer_of({"audio": 1.0}), optimizer_of({"audio": 1.0})

    def closure() -> float:
        scale_updates(second, {"audio": 0.5})
        assert second.param_groups[0]["lr"] == 1.0
        return 0.0

    first.step(closure)
    assert first.param_groups[0]["params"][0].item() == -1.0
    second.step()
    assert second.param_groups[0]["params"][0].item() == -0.5
