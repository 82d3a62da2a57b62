"""Laws 7 and 8 of modulation, captured features and schedules where scores, gradients and batches are degenerate."""

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from balancekit import Branches
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
    Modulator,
    correct_score,
    cross_entropy_score,
    discrepancy_ratio,
    drop_features,
    drop_features_released,
    entropy_score,
    miles_coefficient,
    modulate,
    ogm_coefficient,
    pdmp_coefficient,
    pmr_weights,
    scale_gradients,
    scale_updates,
    shapley_logits,
    slice_logits,
    suppress_best_coefficient,
    true_class_score,
    two_sided_coefficient,
    zero_out_logits,
)
from balancekit.schedules import purity, relearn_strength, soft_reset
from tests import degenerate
from tests.degenerate import BROKEN, DTYPES, FINITE, filled, laid

some = settings(max_examples=15, deadline=None)
any_kind = st.sampled_from(FINITE + BROKEN)
references = st.sampled_from(("others", "pairwise", "min"))
shapes = st.sampled_from(((), (3,), (0,), (2, 3), (2, 3, 2)))  # of one sample's feature

PRESETS: dict[str, tuple[Callable[[int], Modulator], float, float]] = {  # the range of its coefficients
    "OGM": (lambda m: OGM(0.8), 0, 1),
    "OGM others": (lambda m: OGM(0.8, reference="others"), 0, 1),
    "OGM min": (lambda m: OGM(0.8, reference="min"), 0, 1),
    "OGM continuous": (lambda m: OGM(0.8, continuous=True), 0, 1),
    "MLB": (lambda m: MLB(), 0, 2),
    "AGM": (AGM, 0, math.exp(10)),
    "SMP": (lambda m: SMP(), 0, 1),
    "OPM": (lambda m: OPM(), 0, 1),
    "OPM others": (lambda m: OPM(reference="others"), 0, 1),
    "ARL": (lambda m: ARL(), 1, 2),
}
EVERY_PRESET = pytest.mark.parametrize("name", PRESETS)
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def neutral(name: str, modalities: int) -> float:
    """The coefficient of modalities that are level."""
    return 0.0 if name.startswith("OPM") else 1 + 1 / modalities if name == "ARL" else 1.0


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit; any NaN equals any other."""
    holes = a.isnan()
    kept = [x.detach().masked_fill(holes, 0).contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(holes, b.isnan()) and torch.equal(*kept)


def branches(**tensors: Tensor) -> Branches:
    """A branch for each tensor, whose gradient it is."""
    model = nn.ParameterDict({name: nn.Parameter(torch.ones_like(g)) for name, g in tensors.items()})
    for name, g in tensors.items():
        model[name].grad = g.clone()
    return Branches(model, {name: name for name in tensors})


def on(made: Branches, name: str) -> Tensor:
    """The gradient of a branch."""
    return made[name][0].grad


# -------------------------------------------------------------------------------------------------- scores and ratios


@settings(max_examples=60, deadline=None)
@given(degenerate.counts, st.floats(1e-30, 1.0), st.sampled_from((torch.float32, torch.float64)), references)
def test_equal_scores_have_the_ratio_one_exactly(m: int, score: float, dtype: torch.dtype, reference: str) -> None:
    ratio = discrepancy_ratio(torch.full((m,), score, dtype=dtype), reference=reference)
    assert torch.equal(ratio, torch.ones(m, dtype=dtype))


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 8), degenerate.seeds, references)
def test_scores_that_tie_have_one_ratio_and_at_the_top_none_is_suppressed(m: int, seed: int, reference: str) -> None:
    scores = torch.rand(m, generator=torch.Generator().manual_seed(seed))
    first, last = seed % m, (seed + 1 + seed // 8 % (m - 1)) % m
    scores[first] = scores[last] = scores.max()
    ratio = discrepancy_ratio(scores, reference=reference)
    assert ratio[first] == ratio[last]
    assert torch.equal(suppress_best_coefficient(ratio), torch.ones(m))


@some
@given(degenerate.counts, degenerate.finite, degenerate.dtypes, degenerate.layouts, degenerate.batches, references)
def test_ratios_are_never_nan_and_one_where_there_is_nothing_to_compare(
    m: int, kind: str, dtype: torch.dtype, layout: str, size: int, reference: str
) -> None:
    scores = laid(filled(kind, size, m, seed=m, dtype=dtype).abs(), layout)
    present = torch.ones(size, m, dtype=torch.bool)
    assert not discrepancy_ratio(scores, reference=reference).isnan().any()
    present[:, 1:] = False
    assert torch.equal(discrepancy_ratio(scores, reference=reference, present=present), torch.ones(size, m).to(dtype))


@EVERY_DTYPE
@pytest.mark.parametrize(
    "function",
    [partial(ogm_coefficient, alpha=0.8), partial(two_sided_coefficient, alpha=0.8)],
    ids=["ogm_coefficient", "two_sided_coefficient"],
)
def test_coefficients_take_ratios_of_any_precision(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    wide = torch.tensor([0.0, 0.5, 1.0, 2.0, torch.inf], dtype=torch.float64)
    found = function(wide.to(dtype))
    torch.testing.assert_close(found.double(), function(wide), rtol=4 * torch.finfo(dtype).eps, atol=4e-3)


@some
@given(degenerate.counts, degenerate.finite, degenerate.dtypes, degenerate.layouts, degenerate.batches)
def test_scores_of_finite_logits_are_finite_and_of_masked_classes_too(
    m: int, kind: str, dtype: torch.dtype, layout: str, size: int
) -> None:
    logits = {str(i): filled(kind, size, 4, seed=i, dtype=dtype, layout=layout) for i in range(m)}
    masked = {name: each.clone().index_fill(1, torch.tensor([3]), -torch.inf) for name, each in logits.items()}
    labels = torch.arange(size) % 3
    for each in (logits, masked):
        for score, high in ((true_class_score, 1.0), (entropy_score, math.log(4) + 1e-5), (correct_score, 1.0)):
            found = score(each, labels)
            assert found.shape == (size, m)
            assert found.dtype == torch.promote_types(dtype, torch.float32)
            assert ((found >= 0) & (found <= high)).all()
        assert cross_entropy_score(each, labels).isfinite().all()


@pytest.mark.parametrize("score", [true_class_score, cross_entropy_score, entropy_score, correct_score])
def test_a_logit_that_is_not_a_number_is_no_score(score: Callable[..., Tensor]) -> None:
    logits = {"audio": torch.tensor([[torch.nan, 0.0], [0.0, 1.0]]), "video": torch.zeros(2, 2)}
    found = score(logits, torch.tensor([0, 1]))
    assert found.isnan().tolist() == [[True, False], [False, False]]


# ------------------------------------------------------------------------------------------------------------ presets


@EVERY_PRESET
@some
@given(degenerate.counts, degenerate.finite, degenerate.dtypes, degenerate.layouts, degenerate.batches)
def test_finite_logits_have_coefficients_in_their_range_whatever_their_layout(
    name: str, m: int, kind: str, dtype: torch.dtype, layout: str, size: int
) -> None:
    make, low, high = PRESETS[name]
    logits = {str(i): filled(kind, size, 3, seed=i, dtype=dtype, layout=layout) for i in range(m)}
    labels = torch.arange(size) % 3
    found, plain = make(m)(logits, labels), make(m)({n: z.contiguous() for n, z in logits.items()}, labels)
    for each in logits:
        assert found[each].shape == ()
        assert low <= found[each] <= high
        assert same(found[each], plain[each])


@EVERY_PRESET
@settings(max_examples=10, deadline=None)
@given(degenerate.counts, degenerate.finite, degenerate.seeds)
def test_modalities_that_are_level_are_left_alone(name: str, m: int, kind: str, seed: int) -> None:
    """For any number of them; so are those of an empty batch."""
    logits = filled(kind, 2, 3, seed=seed)
    for each, labels in ((logits, torch.tensor([0, 2])), (logits[:0], torch.empty(0, dtype=torch.int64))):
        preset = PRESETS[name][0](m)
        found = preset({str(i): each for i in range(m)}, labels).values()
        if len(labels) or name != "ARL":
            assert [k.item() for k in found] == pytest.approx([neutral(name, m)] * m, abs=1e-5)
        else:
            assert [k.item() for k in found] == [1.0] * m
        if isinstance(preset, AGM) and not len(labels):
            assert not preset.ratio.steps.any()


@EVERY_PRESET
def test_a_batch_of_one_is_a_batch_of_its_copies(name: str) -> None:
    logits = {str(i): filled("plain", 1, 3, seed=i, dtype=torch.float64) for i in range(3)}
    one = PRESETS[name][0](3)(logits, torch.tensor([1]))
    many = PRESETS[name][0](3)({n: z.repeat(4, 1) for n, z in logits.items()}, torch.ones(4, dtype=torch.int64))
    torch.testing.assert_close(one, many, rtol=1e-12, atol=1e-12)


@EVERY_PRESET
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_never_answered_with_a_number(name: str, bad: float) -> None:
    """For which the softmax is none: the modality has no coefficient, and nothing of it is kept."""
    logits = {str(i): filled("plain", 2, 3, seed=i) for i in range(3)}
    preset, labels = PRESETS[name][0](3), torch.tensor([0, 2])
    before = copy.deepcopy(preset.state_dict())
    logits["1"][1, 0] = bad
    assert preset(logits, labels)["1"].isnan()
    assert all(same(a, b) for a, b in zip(preset.state_dict().values(), before.values(), strict=True))


@EVERY_PRESET
def test_an_absent_modality_may_hold_anything(name: str) -> None:
    logits, labels = {str(i): filled("plain", 2, 3, seed=i) for i in range(3)}, torch.tensor([0, 2])
    gone = {"1": torch.zeros(2, dtype=torch.bool)}
    plain = PRESETS[name][0](3)(logits, labels, present=gone)
    logits["1"] = filled("nan", 2, 3, seed=0)
    found = PRESETS[name][0](3)(logits, labels, present=gone)
    assert all(same(found[n], plain[n]) for n in logits)
    assert found["1"].item() == (0.0 if name.startswith("OPM") else 1.0)


@some
@given(degenerate.counts, degenerate.finite, degenerate.dtypes, degenerate.layouts, degenerate.batches)
def test_the_surest_modality_takes_all_of_each_sample(
    m: int, kind: str, dtype: torch.dtype, layout: str, size: int
) -> None:
    u = {str(i): laid(filled(kind, size, seed=i, dtype=dtype).abs(), layout) for i in range(m)}
    k = torch.stack(list(EpistemicModulation()(u).values()), 1)
    assert ((k >= 0) & (k <= 1)).all()
    surest = torch.stack(list(u.values()), 1).double()
    surest = surest == surest.amin(1, keepdim=True)
    torch.testing.assert_close(k[surest], torch.ones_like(k[surest]), rtol=1e-5, atol=0)


NAN_FACTS: dict[str, Callable[[dict[str, float]], Mapping[str, Tensor]]] = {
    "miles_coefficient": miles_coefficient,
    "pdmp_coefficient": partial(pdmp_coefficient, dominant=1.5, rest=0.5),
    "CGGM": CGGM(["audio", "video"]),
    "MSLR": MSLR({"audio": 0.9, "video": 1.1}),
    "pmr_weights": lambda s: dict(zip(s, pmr_weights(torch.tensor(list(s.values())))[0], strict=True)),
}


@pytest.mark.parametrize("name", NAN_FACTS)
def test_an_accuracy_that_is_not_a_number_is_never_answered_with_one_and_not_kept(name: str) -> None:
    found = []
    for skipped in (True, False):
        method = copy.deepcopy(NAN_FACTS[name])
        method({"audio": 0.5, "video": 0.3})
        if skipped:
            assert method({"audio": torch.nan, "video": 0.4})["audio"].isnan()
        found.append(torch.stack(list(method({"audio": 0.6, "video": 0.5}).values())))
    assert torch.equal(*found)


# ------------------------------------------------------------------------------------------------------------ logits


@some
@given(degenerate.counts, any_kind, degenerate.dtypes, degenerate.layouts, degenerate.batches, degenerate.seeds)
def test_slices_add_up_to_the_head_and_a_bad_one_stays_where_it_is(
    m: int, kind: str, dtype: torch.dtype, layout: str, size: int, seed: int
) -> None:
    """Widths from 0 on; one modality is of the kind, and none hears of it."""
    widths = {str(i): i % 3 for i in range(m)}
    head = nn.Linear(sum(widths.values()) or 1, 2, dtype=dtype)
    if not sum(widths.values()):
        widths["0"] = 1
    features = {
        n: filled(kind if n == "0" else "plain", size, w, seed=seed + int(n), dtype=dtype, layout=layout)
        for n, w in widths.items()
    }
    parts = slice_logits(head, features)
    assert all(part.shape == (size, 2) for part in parts.values())
    assert all(part.isfinite().all() for n, part in parts.items() if n != "0")
    assert torch.equal(parts["0"].isfinite().all(1), features["0"].isfinite().all(1))
    if kind in FINITE:
        whole, eps = head(torch.cat(list(features.values()), 1)).double(), torch.finfo(dtype).eps
        size_of = sum(part.double().abs() for part in parts.values()) + head.weight.double().abs().sum() * 1e-6
        if whole.isfinite().all():
            assert ((sum(part.double() for part in parts.values()) - whole).abs() <= 16 * eps * (1 + size_of)).all()


@some
@given(st.integers(1, 5), degenerate.finite, degenerate.batches, degenerate.seeds)
def test_shapley_logits_add_up_for_any_batch_and_zeroed_ones_see_one_modality(
    m: int, kind: str, size: int, seed: int
) -> None:
    features = {str(i): filled(kind, size, 3, seed=seed + i, dtype=torch.float64) for i in range(m)}

    def fuse(z: dict[str, Tensor]) -> Tensor:
        return torch.cat(list(z.values()), 1).tanh().cumsum(1)

    torch.testing.assert_close(sum(shapley_logits(fuse, features).values()), fuse(features), rtol=1e-9, atol=1e-9)
    features["0"] = torch.full_like(features["0"], torch.nan)
    assert all(each.isfinite().all() for n, each in zero_out_logits(fuse, features).items() if n != "0")


# ---------------------------------------------------------------------------------------------------------- actuators


def boundary(gradient: Tensor, coefficient: Tensor | float | None) -> Tensor:
    """What arrives behind a feature that a loss gives this gradient."""
    leaf = torch.ones_like(gradient).requires_grad_()
    z = leaf.clone()
    loss = (z * gradient).sum()
    if coefficient is not None:
        modulate({"audio": z}, {"audio": coefficient}, loss)
    loss.backward()
    return leaf.grad


@settings(max_examples=40, deadline=None)
@given(any_kind, degenerate.dtypes, degenerate.layouts, degenerate.batches, shapes, degenerate.seeds)
def test_a_coefficient_of_one_changes_no_bit_of_any_gradient(
    kind: str, dtype: torch.dtype, layout: str, size: int, shape: tuple[int, ...], seed: int
) -> None:
    gradient = filled(kind, size, *shape, seed=seed, dtype=dtype, layout=layout)
    plain = boundary(gradient, None)
    for one in (1, 1.0, torch.tensor(1.0), torch.ones(size), torch.ones((), dtype=torch.float64)):
        assert same(boundary(gradient, one), plain)
        made = branches(audio=gradient)
        if not isinstance(one, Tensor) or one.ndim == 0:
            scale_gradients(made, {"audio": one})
            assert same(on(made, "audio"), gradient)
            for kept in drop_features({"audio": gradient}, {"audio": one - 1}).values() if size else ():
                assert same(kept, gradient)


@settings(max_examples=40, deadline=None)
@given(any_kind, any_kind, degenerate.dtypes, degenerate.layouts, degenerate.batches, shapes, degenerate.seeds)
def test_a_coefficient_is_a_factor_and_loses_nothing_that_is_not_finite(
    kind: str, of_coefficient: str, dtype: torch.dtype, layout: str, size: int, shape: tuple[int, ...], seed: int
) -> None:
    """At the feature, for the batch and for each sample; and of a parameter: 0 · inf is not 0."""
    gradient = filled(kind, size, *shape, seed=seed, dtype=dtype, layout=layout)
    each = filled(of_coefficient, size, seed=seed + 1, dtype=dtype, layout=layout)
    assert same(boundary(gradient, each), gradient * each.reshape(-1, *[1] * len(shape)))
    for k in (0.0, each[0] if size else torch.tensor(torch.inf)):
        k = k if isinstance(k, float) else k.double()
        expected = gradient * (k if isinstance(k, float) else k.to(dtype))
        made = branches(audio=gradient)
        scale_gradients(made, {"audio": k})
        for found in (boundary(gradient, k), on(made, "audio")):
            assert torch.equal(found.isfinite(), expected.isfinite())
            torch.testing.assert_close(found, expected, rtol=4 * torch.finfo(dtype).eps, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("width", [0, 2])
def test_a_feature_that_is_not_reached_is_an_error_however_small(size: int, width: int) -> None:
    leaf = torch.ones(size, width, requires_grad=True)
    z, other = leaf.clone(), leaf.clone()
    with pytest.raises(ValueError, match=r"features: expected .* found \['audio'\]"):
        modulate({"audio": other}, {"audio": 0.5}, z.sum())
    (loss := z.sum() + other.sum()).backward()
    assert torch.equal(leaf.grad, torch.full((size, width), 2.0))
    assert loss.isfinite()


@some
@given(degenerate.finite, degenerate.dtypes, st.sampled_from(((1,), (0, 3), (40,), (4, 3, 2, 2))), degenerate.seeds)
def test_noise_follows_the_size_of_the_gradient(
    kind: str, dtype: torch.dtype, shape: tuple[int, ...], seed: int
) -> None:
    """Twice the gradient has twice the noise, bit for bit; none without a spread; and never one that is not finite."""
    wide = torch.promote_types(dtype, torch.float32)
    gradient = filled(kind, *shape, seed=seed, dtype=wide) / 4
    found = []
    for times in (1.0, 2.0):
        made = branches(audio=gradient * times)
        scale_gradients(made, {"audio": 0.5}, noise=True, generator=torch.Generator().manual_seed(seed))
        found.append(on(made, "audio"))
    assert found[0].isfinite().all()
    assert torch.equal(found[0] * 2, found[1])
    spread = gradient.numel() > 1 and bool((gradient != gradient.flatten()[0]).any())
    assert spread == bool((found[0] != gradient / 2).any())


@some
@given(any_kind, st.sampled_from((torch.float32, torch.float64)), degenerate.layouts, degenerate.seeds)
def test_an_update_times_one_changes_no_bit_and_times_two_is_twice(
    kind: str, dtype: torch.dtype, layout: str, seed: int
) -> None:
    gradient = filled(kind, 2, 3, seed=seed, dtype=dtype, layout=layout)
    for optimizer_class in (torch.optim.SGD, torch.optim.AdamW):
        moved = []
        for k in (None, 1.0, torch.tensor(1.0), torch.tensor(2.0, dtype=torch.bfloat16)):
            w = nn.Parameter(torch.zeros(2, 3, dtype=dtype))
            empty = nn.Parameter(torch.zeros(0, 3, dtype=dtype))
            optimizer = optimizer_class([{"name": "audio", "params": [w, empty]}], lr=0.5)
            w.grad, empty.grad = gradient.clone(), torch.zeros_like(empty)
            if k is not None:
                scale_updates(optimizer, {"audio": k})
            optimizer.step()
            moved.append(w.detach())
            assert optimizer.param_groups[0]["lr"] == 0.5
        plain, one, same_one, two = moved
        assert same(plain, one)
        assert same(plain, same_one)
        assert same(plain * 2, two)


@settings(max_examples=40, deadline=None)
@given(degenerate.counts, any_kind, degenerate.dtypes, degenerate.layouts, degenerate.batches, degenerate.seeds)
def test_dropped_features_are_zero_or_scaled_and_no_sample_loses_all(
    m: int, kind: str, dtype: torch.dtype, layout: str, size: int, seed: int
) -> None:
    """Any number, batch and width, 0 too; what is not finite stays so."""
    features = {str(i): filled(kind, size, (i + 2) % 3, seed=seed + i, dtype=dtype, layout=layout) for i in range(m)}
    q = {n: (0.0, 0.5, 1.0)[(seed + int(n)) % 3] for n in features}
    widths = {n: z.shape[1] for n, z in features.items()}
    all_lost = math.prod(q[n] for n in q if widths[n])
    theta = sum(widths[n] * (q[n] - all_lost) for n in q) / sum(widths.values())
    found = drop_features(features, q, generator=torch.Generator().manual_seed(seed))
    whole, lost = torch.ones(size, dtype=torch.bool), torch.ones(size, dtype=torch.bool)
    for n, z in features.items():
        assert found[n].shape == z.shape
        assert found[n].dtype == dtype
        fine, zero = z.isfinite().all(1), ~found[n].any(1)
        kept, eps = fine & ~zero, torch.finfo(dtype).eps
        torch.testing.assert_close(found[n][kept], (z / (1 - theta))[kept], rtol=4 * eps, atol=1e-7)
        assert not found[n][~fine].isfinite().all(1).any()
        whole, lost = whole & (z.any(1) if widths[n] else True), lost & zero
    assert not (whole & lost).any()


@pytest.mark.parametrize("drop", [drop_features, lambda z, q: drop_features_released(z, torch.empty(0), q)[0]])
def test_an_empty_batch_has_nothing_to_drop(drop: Callable[..., dict[str, Tensor]]) -> None:
    features = {"audio": torch.ones(0, 3, requires_grad=True), "video": torch.ones(0, 2)}
    found = drop(features, {"audio": 1.0})
    assert {n: z.shape for n, z in found.items()} == {n: z.shape for n, z in features.items()}


@pytest.mark.parametrize(
    "drop", [drop_features, lambda z, q: drop_features_released(z, torch.ones(len(z["audio"])), q)]
)
@pytest.mark.parametrize("sizes", [(1, 5), (5, 1)])
def test_features_of_two_batches_are_refused(drop: Callable[..., Any], sizes: tuple[int, int]) -> None:
    """One row would be repeated, and no error would say so."""
    features = {n: torch.ones(size, 2) for n, size in zip(("audio", "video"), sizes, strict=True)}
    with pytest.raises(ValueError, match="features"):
        drop(features, {"audio": 0.5})


# ------------------------------------------------------------------------------------------------ branches: capture


class Echo(nn.Module):
    """An encoder that returns what it is given, by way of its one parameter."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.one


@some
@given(degenerate.counts, any_kind, degenerate.dtypes, degenerate.layouts, degenerate.batches, shapes, degenerate.seeds)
def test_a_captured_feature_is_the_very_one_and_capturing_changes_no_bit(
    m: int, kind: str, dtype: torch.dtype, layout: str, size: int, shape: tuple[int, ...], seed: int
) -> None:
    model = nn.ModuleDict({str(i): Echo(dtype) for i in range(m)})
    of = Branches(model, {n: n for n in model})
    x = {
        n: filled(kind, size, *shape, seed=seed + int(n), dtype=dtype, layout=layout)
        for n in list(model)[: 1 + seed % m]
    }
    sum(model[n](each).sum() for n, each in x.items()).backward()
    plain = [p.grad for p in model.parameters()]
    model.zero_grad()
    with of.capture() as features:
        out = {n: model[n](each) for n, each in x.items()}
    assert list(features) == list(x)
    assert all(features[n] is out[n] for n in x)
    sum(each.sum() for each in features.values()).backward()
    for p, gradient in zip(model.parameters(), plain, strict=True):
        assert (p.grad is None) == (gradient is None)
        assert gradient is None or same(p.grad, gradient)


# -------------------------------------------------------------------------------------------------------- schedules


@some
@given(any_kind, any_kind, degenerate.dtypes, degenerate.layouts, st.floats(0.01, 0.99), degenerate.seeds)
def test_a_partial_reset_of_any_tensor_is_the_exact_mean_and_keeps_what_is_not_finite(
    kind: str, of_initial: str, dtype: torch.dtype, layout: str, strength: float, seed: int
) -> None:
    shapes = {"kernel": (2, 3, 2, 2), "bias": (5,), "none": (0, 3)}
    module, initial = nn.ParameterDict(), {}
    for n, shape in shapes.items():
        start = filled(kind, *shape, seed=seed, dtype=dtype)
        module[n] = nn.Parameter(laid(start, "channels last" if layout == "expanded" else layout))
        initial[n] = filled(of_initial, *shape, seed=seed + 1, dtype=dtype, layout=layout)
    before = {n: p.detach().double().clone() for n, p in module.items()}
    soft_reset(module, initial, strength)
    for n, p in module.items():
        first = initial[n].double()
        fine = before[n].isfinite() & first.isfinite()
        assert torch.equal(p.isfinite(), fine)
        expected, size = strength * first + (1 - strength) * before[n], first.abs() + before[n].abs()
        tolerance = 4 * torch.finfo(dtype).eps * size + torch.finfo(dtype).smallest_normal
        assert ((p.double() - expected).abs() <= tolerance)[fine].all()


@some
@given(any_kind, degenerate.dtypes, degenerate.layouts, degenerate.seeds)
def test_a_purity_that_is_not_finite_has_no_strength_between(
    kind: str, dtype: torch.dtype, layout: str, seed: int
) -> None:
    train, val = filled(kind, 4, seed=seed, dtype=dtype, layout=layout), filled("plain", 4, seed=seed + 1, dtype=dtype)
    strength = relearn_strength(train, val)
    assert torch.equal(strength.isnan(), train.isnan())
    assert (strength[~train.isnan()] <= 1).all()
    assert (strength[train.isinf()] == 1).all()


def test_one_sample_is_pure_and_none_is_refused() -> None:
    for n in (1, 2, 5):
        assert purity(torch.zeros(n, dtype=torch.int64), torch.full((n,), 7)).item() == 1.0
    with pytest.raises(ValueError, match="at least one sample"):
        purity(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
