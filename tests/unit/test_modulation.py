import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balancekit.modulation import (
    AGM,
    CGGM,
    MLB,
    MSLR,
    OGM,
    arl_coefficient,
    discrepancy_ratio,
    ogm_coefficient,
    opm_probability,
    pmr_weights,
    suppress_best_coefficient,
    true_class_score,
    two_sided_coefficient,
)
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
