"""Laws of the feature density and of the cross-modal residual, and law 8."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from balancekit.uncertainty import CrossModalResidual, FeatureDensity
from tests.compiling import fullgraph

DIM, CLASSES = 4, 3
DIMS = {"rgb": 3, "depth": 2, "ir": 2}
KINDS: dict[str, dict[str, Any]] = {
    "diag": {},
    "full": {"covariance": "full"},
    "low-rank": {"covariance": "low-rank", "rank": 2},
    "classes": {"classes": CLASSES},
    "full classes": {"covariance": "full", "classes": CLASSES},
    "low-rank classes": {"covariance": "low-rank", "rank": 1, "classes": CLASSES},
}
some = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31 - 1)
kinds = st.sampled_from(list(KINDS))
broken = st.sampled_from([float("nan"), float("inf"), float("-inf")])
DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def draw(seed: int, n: int = 24, d: int = DIM, dtype: torch.dtype = torch.float64) -> Tensor:
    """Correlated features, the same law for every seed."""
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    return (torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ mixing).to(dtype)


def classes_of(seed: int, n: int = 24) -> Tensor:
    return torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(seed + 1))


def split(x: Tensor) -> dict[str, Tensor]:
    return dict(zip(DIMS, x.split(list(DIMS.values()), -1), strict=True))


class Subject:
    """A density or a residual, called in one way: rows "n d" and labels in, uncertainty "m n" out."""

    def __init__(self, kind: str, dtype: torch.dtype = torch.float64, **chosen: Any) -> None:
        self.kind, self.labelled = kind, "classes" in kind
        module = (
            CrossModalResidual(DIMS, **chosen) if kind == "residual" else FeatureDensity(DIM, **KINDS[kind], **chosen)
        )
        self.module, self.dtype = module.to(dtype), dtype
        self.dim = sum(DIMS.values()) if kind == "residual" else DIM

    def draw(self, seed: int, n: int = 24) -> tuple[Tensor, Tensor]:
        return draw(seed, n, self.dim, self.dtype), classes_of(seed, n)

    def arguments(self, x: Tensor, labels: Tensor) -> tuple[Any, ...]:
        return (split(x),) if self.kind == "residual" else (x, labels) if self.labelled else (x,)

    def accumulate(self, x: Tensor, labels: Tensor) -> None:
        self.module.accumulate(*self.arguments(x, labels))

    def calibrate(self, x: Tensor, labels: Tensor) -> None:
        self.module.calibrate(*self.arguments(x, labels))

    def fit(self, seed: int = 0, n: int = 60) -> "Subject":
        self.accumulate(*self.draw(seed, n))
        self.module.commit()
        return self

    def calibrated(self, seed: int = 1, n: int = 60) -> "Subject":
        self.calibrate(*self.draw(seed, n))
        self.module.commit()
        return self

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        found = self.module(*self.arguments(x, labels))
        return torch.stack(list(found.values())) if self.kind == "residual" else found[None]

    def confidence(self, x: Tensor, labels: Tensor) -> Tensor:
        found = self.module.confidence(*self.arguments(x, labels))
        return torch.stack(list(found.values())) if self.kind == "residual" else found[None]


subjects = st.sampled_from([*KINDS, "residual"])


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(module: nn.Module, before: dict[str, Tensor], **tolerance: float) -> None:
    tolerance = tolerance or {"rtol": 0.0, "atol": 0.0}
    now = module.state_dict()
    assert now.keys() == before.keys()
    for name, value in now.items():
        torch.testing.assert_close(value, before[name], equal_nan=True, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


# the statistics


@some
@given(seeds, subjects, st.lists(st.integers(0, 24), min_size=2, max_size=2).map(sorted), st.permutations(range(24)))
def test_neither_the_parts_of_the_data_nor_their_order_matter(seed, kind, cuts, order) -> None:
    one, parts = Subject(kind), Subject(kind)
    x, labels = one.draw(seed)
    one.accumulate(x, labels)
    for rows in torch.tensor(order).tensor_split(cuts):  # some of them empty
        parts.accumulate(x[rows], labels[rows])
    for each in (one, parts):
        each.module.commit()
    assert_same(parts.module.moments, state(one.module.moments), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts(x, labels), one(x, labels), rtol=1e-7, atol=1e-9)


@some
@given(seeds, subjects, st.integers(0, 24))
def test_commits_without_forgetting_are_one_commit(seed, kind, cut) -> None:
    one, two = Subject(kind), Subject(kind)
    x, labels = one.draw(seed)
    one.accumulate(x, labels)
    one.module.commit()
    for part in (slice(cut), slice(cut, None)):
        two.accumulate(x[part], labels[part])
        two.module.commit()
    assert_same(two.module.moments, state(one.module.moments), rtol=1e-9, atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(seeds, st.sampled_from(["diag", "full", "classes", "residual"]), st.sampled_from([(10, 24), (1, 20_000)]))
def test_a_mean_far_above_the_deviation_costs_no_digits_in_float32(seed, kind, batches) -> None:
    narrow, wide = Subject(kind, torch.float32), Subject(kind)
    for i in range(batches[0]):
        x, labels = narrow.draw(seed + i, batches[1])
        x = (x + 1e4).float()  # rounded to 0.001 here, for both
        narrow.accumulate(x, labels)
        wide.accumulate(x.double(), labels)
    for each in (narrow, wide):
        each.module.commit()
    found, expected = narrow.module.moments, wide.module.moments
    torch.testing.assert_close(found.mean.double(), expected.mean, rtol=2e-7, atol=0)
    size = expected.scatter.sqrt() if expected.scatter.ndim == 1 else expected.scatter.diagonal().sqrt()
    error = (found.scatter - expected.scatter) / (size * size if expected.scatter.ndim == 1 else size[:, None] * size)
    assert error.abs().max() < 5e-4  # the spacing of float32 at 1e4 is 1e-3, of sums of squares it would be 1


@some
@given(seeds, subjects, broken, st.integers(0, 2))
def test_a_non_finite_batch_is_skipped_and_the_others_count(seed, kind, value, position) -> None:
    one, other = Subject(kind).fit().calibrated(), Subject(kind).fit().calibrated()
    batches = [one.draw(seed + i) for i in range(2)]
    poison = one.draw(seed + 9)
    poison[0][5, 2] = value
    for add in ("accumulate", "calibrate"):
        for batch in batches:
            getattr(one, add)(*batch)
        for batch in (*batches[:position], poison, *batches[position:]):
            getattr(other, add)(*batch)
        assert_same(other.module, state(one.module))
    assert (other(*poison).isnan() | other(*poison).isinf()).any()
    assert not other(*poison)[0].isfinite().all()


@pytest.mark.parametrize("kind", [*KINDS, "residual"])
def test_an_overflow_of_finite_features_is_skipped_as_well(kind: str) -> None:
    subject = Subject(kind, torch.float32).fit().calibrated()
    before = state(subject.module)
    x, labels = subject.draw(3)
    for scale in (1e30, 3e37):
        subject.accumulate(x * scale, labels)
        subject.calibrate(x * scale, labels)
    assert_same(subject.module, before)
    assert not subject(x * 1e30, labels).isnan().any()


@some
@given(subjects, st.sampled_from([1.0, 0.5, 0.0]))
def test_a_commit_of_nothing_changes_nothing(kind, decay) -> None:
    subject = Subject(kind, decay=decay).fit().calibrated()
    before = state(subject.module)
    subject.module.commit()
    subject.accumulate(*subject.draw(0, 0))
    subject.calibrate(*subject.draw(0, 0))
    subject.module.commit()
    assert_same(subject.module, before)


@some
@given(seeds, subjects)
def test_with_decay_zero_only_the_last_data_count(seed, kind) -> None:
    fresh, forgetful = Subject(kind), Subject(kind, decay=0.0).fit()
    x, labels = fresh.draw(seed)
    labels = torch.arange(24) % CLASSES  # all classes, in both
    for each in (fresh, forgetful):
        each.accumulate(x, labels)
        each.module.commit()
    torch.testing.assert_close(forgetful(x, labels), fresh(x, labels), rtol=1e-7, atol=1e-9)


# the distance


@some
@given(seeds, st.sampled_from(["diag", "full", "classes", "full classes", "residual"]))
def test_the_mean_square_over_the_data_of_the_fit_is_one(seed, kind) -> None:
    subject = Subject(kind, **({"shrinkage": 0.0} if "full" in kind else {}))
    x, labels = subject.draw(seed, 60)
    subject.accumulate(x, labels)
    subject.module.commit()
    square = subject(x, labels).square().mean(1)
    torch.testing.assert_close(square, torch.ones_like(square), rtol=1e-9, atol=0)


@some
@given(seeds, subjects, st.floats(-1e3, 1e3), st.integers(-8, 8))
def test_neither_an_offset_nor_the_units_of_the_channels_matter(seed, kind, offset, power) -> None:
    one, other = Subject(kind).fit(), Subject(kind)
    units = torch.logspace(power, power + 1, one.dim, dtype=torch.float64)
    x, labels = one.draw(0, 60)
    other.accumulate((x + offset) * units, labels)
    other.module.commit()
    x, labels = one.draw(seed)
    torch.testing.assert_close(other((x + offset) * units, labels), one(x, labels), rtol=1e-6, atol=1e-9)


@some
@given(seeds, st.sampled_from(["full", "full classes"]))
def test_without_shrinkage_full_covariance_is_blind_to_invertible_maps(seed, kind) -> None:
    one, other = Subject(kind, shrinkage=0.0).fit(), Subject(kind, shrinkage=0.0)
    g = torch.Generator().manual_seed(seed)
    left, right = (torch.linalg.qr(torch.randn(DIM, DIM, generator=g, dtype=torch.float64))[0] for _ in range(2))
    mapping = left * torch.tensor([0.01, 0.1, 1.0, 10.0], dtype=torch.float64) @ right
    x, labels = one.draw(0, 60)
    other.accumulate(x @ mapping, labels)
    other.module.commit()
    x, labels = one.draw(seed)
    torch.testing.assert_close(other(x @ mapping, labels), one(x, labels), rtol=1e-6, atol=1e-9)


@some
@given(seeds)
def test_shrunk_all_the_way_full_is_diagonal(seed) -> None:
    x, labels = Subject("diag").draw(seed)
    torch.testing.assert_close(Subject("full", shrinkage=1.0).fit()(x, labels), Subject("diag").fit()(x, labels))


@some
@given(seeds, st.sampled_from(["classes", "full classes", "low-rank classes"]), st.booleans())
def test_without_labels_the_distance_is_to_the_nearest_class_seen(seed, kind, gap) -> None:
    subject = Subject(kind)
    x, labels = subject.draw(seed, 60)
    labels = torch.where(labels == 1, 2, labels) if gap else labels
    subject.accumulate(x, labels)
    subject.module.commit()
    each = torch.stack([subject.module(x, torch.tensor(c)) for c in range(CLASSES)])  # a label for all of them
    assert each[1].isnan().all() == gap
    nearest = each[[0, 2]].amin(0) if gap else each.amin(0)
    x = x.requires_grad_()
    found = subject.module(x)
    torch.testing.assert_close(found, nearest, rtol=1e-9, atol=1e-12)
    found.sum().backward()
    assert x.grad.isfinite().all()


@some
@given(seeds, st.sampled_from([1.0, 0.5, 0.0]))
def test_an_absent_class_keeps_its_mean(seed, decay) -> None:
    subject = Subject("classes", decay=decay)
    subject.accumulate(*subject.draw(seed, 60))
    subject.module.commit()
    before = subject.module.moments.mean.clone()
    for i in range(3):
        subject.accumulate(subject.draw(seed + i)[0], torch.zeros(24, dtype=torch.int64))
        subject.module.commit()
    assert torch.equal(subject.module.moments.mean[1:], before[1:])
    assert subject.module.moments.seen.all()
    assert not torch.equal(subject.module.moments.mean[0], before[0])


@pytest.mark.parametrize("kind", [*KINDS, "residual"])
def test_before_the_first_commit_everything_is_nan(kind: str) -> None:
    subject = Subject(kind)
    x, labels = subject.draw(0)
    subject.accumulate(x, labels)
    assert subject(x, labels).isnan().all()
    assert subject.confidence(x, labels).isnan().all()
    if kind != "residual":
        assert subject.module(x).isnan().all()


@pytest.mark.parametrize("kind", [*KINDS, "residual"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 5])
def test_constant_channels_and_single_samples_stay_finite(kind: str, dtype: torch.dtype, n: int) -> None:
    for constant in (0.0, 1e-30, 0.1, 1e4):
        for channels in (slice(1), slice(None)):
            subject = Subject(kind, dtype)
            x, labels = subject.draw(0, n)
            x[:, channels] = constant
            subject.accumulate(x, labels)
            subject.module.commit()
            assert subject(x, labels).isfinite().all()
            assert subject(x + 1, labels).isfinite().all()
            assert (subject(x + 1, labels) >= 1).all()


def test_a_constant_channel_is_measured_in_thousandths_of_the_root_mean_square() -> None:
    density = FeatureDensity(2)
    density.accumulate(torch.tensor([[7.0, -3.0], [7.0, 3.0]]))
    density.commit()
    rms = (9 / 2) ** 0.5
    torch.testing.assert_close(density(torch.tensor([7 + 0.1 * rms, 0.0])), torch.tensor(100 / 2**0.5))


@some
@given(subjects, st.sampled_from([torch.float64, torch.float32]))
def test_at_distance_zero_the_gradient_is_finite(kind, dtype) -> None:
    subject = Subject(kind, dtype).fit()
    means, labels = subject.module.moments.mean, torch.arange(CLASSES)
    x = means.expand(CLASSES, -1).clone().requires_grad_()
    distance = subject(x, labels)
    assert (distance < 1e-6).all()
    distance.sum().backward()
    assert x.grad.isfinite().all()


@some
@given(seeds, subjects)
def test_the_distance_is_differentiable_and_the_statistics_are_not(seed, kind) -> None:
    subject = Subject(kind).fit()
    x, labels = subject.draw(seed, 3)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: subject(x, labels), x)
    subject.accumulate(x, labels)
    subject.calibrate(x, labels)
    assert not subject.confidence(x, labels).requires_grad
    assert not any(value.requires_grad for value in subject.module.buffers())


# the residual


@some
@given(seeds, st.sampled_from(["diag", "full"]))
def test_a_residual_sees_a_mismatch_that_no_density_can(seed, covariance) -> None:
    """Frames in another order: each modality keeps its distribution exactly."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(200, 2, generator=g)
    tokens = {m: hidden.repeat(1, d)[:, :d] + 0.1 * torch.randn(200, d, generator=g) for m, d in DIMS.items()}
    wrong = {**tokens, "ir": tokens["ir"].roll(1, 0)}
    residual = CrossModalResidual(DIMS, covariance=covariance)
    residual.accumulate(tokens)
    residual.commit()
    clean, found = residual(tokens), residual(wrong)
    assert (found["ir"].median() > 3 * clean["ir"].median()).item()
    assert found["ir"].median() > found["rgb"].median()  # most of it at the modality at fault
    density = FeatureDensity(DIMS["ir"])
    density.accumulate(tokens["ir"])
    density.commit()
    assert torch.equal(density(wrong["ir"]).sort().values, density(tokens["ir"]).sort().values)


@some
@given(seeds, st.permutations(list(DIMS)))
def test_the_order_of_the_modalities_does_not_matter(seed, order) -> None:
    one, other = CrossModalResidual(DIMS).double(), CrossModalResidual({m: DIMS[m] for m in order}).double()
    tokens = split(draw(seed, 60, sum(DIMS.values())))
    for each in (one, other):
        each.accumulate(tokens if each is one else dict(sorted(tokens.items())))
        each.commit()
    expected, found = one(tokens), other(tokens)
    assert list(found) == list(order)
    for m in DIMS:
        torch.testing.assert_close(found[m], expected[m], rtol=1e-7, atol=1e-9)


def test_a_modality_of_much_larger_scale_does_not_own_the_ridge() -> None:
    tokens = split(draw(0, 60, sum(DIMS.values()), torch.float32))
    one, other = CrossModalResidual(DIMS), CrossModalResidual(DIMS)
    one.accumulate(tokens)
    other.accumulate({**tokens, "rgb": tokens["rgb"] * 1e6})
    for each in (one, other):
        each.commit()
    expected, found = one(tokens), other({**tokens, "rgb": tokens["rgb"] * 1e6})
    for m in DIMS:
        torch.testing.assert_close(found[m], expected[m], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (2, 0)])
@pytest.mark.parametrize("kind", [*KINDS, "residual"])
def test_any_leading_shape(kind: str, shape: tuple[int, ...]) -> None:
    subject = Subject(kind).fit().calibrated()
    n = torch.Size(shape).numel()
    x, labels = subject.draw(5, n)
    expected = subject(x, labels), subject.confidence(x, labels)
    x, labels = x.reshape(*shape, subject.dim), labels.reshape(shape)
    for call, flat in zip((subject, subject.confidence), expected, strict=True):
        found = call(x, labels)
        assert found.shape[1:] == shape
        torch.testing.assert_close(found.flatten(), flat.flatten())
    subject.accumulate(x, labels)
    assert subject.module.moments.count.sum() == n
    subject.calibrate(x, labels)
    assert (subject.module.calibration.new_counts.sum(1) == n).all()


def test_labels_broadcast_over_the_batch() -> None:
    tokens, positions = draw(0, 60).reshape(20, CLASSES, DIM), torch.arange(CLASSES)
    short, long = Subject("classes").module, Subject("classes").module
    for module, labels in ((short, positions), (long, positions.repeat(20, 1))):
        module.accumulate(tokens, labels)
        module.commit()
    assert_same(short, state(long))
    assert torch.equal(short(tokens, positions), long(tokens, positions.repeat(20, 1)))


# the confidence


@settings(max_examples=10, deadline=None)
@given(seeds, subjects)
def test_confidence_is_uniform_on_data_like_those_of_the_calibration(seed, kind) -> None:
    subject = Subject(kind).fit(0, 200).calibrated(seed, 2000)
    confidence = subject.confidence(*subject.draw(seed + 7, 2000)).sort(1).values
    ideal = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    assert (confidence - ideal).abs().max() < 0.08  # Kolmogorov–Smirnov, two samples of 2000: p = 5e-6


@some
@given(seeds, subjects, st.integers(1, 40))
def test_confidence_is_in_the_interval_and_falls_with_uncertainty(seed, kind, n) -> None:
    subject = Subject(kind, torch.float32).fit().calibrated(seed, n)
    x, labels = subject.draw(seed + 1, 200)
    x = x * torch.logspace(-9, 9, 200)[:, None]
    uncertainty, confidence = subject(x, labels), subject.confidence(x, labels)
    assert (confidence > 0).all()
    assert (confidence <= 1).all()
    for u, c in zip(uncertainty, confidence, strict=True):
        assert (c[u.argsort()].diff() <= 1e-6).all()
        assert c.min() >= 1 / (n + 1) - 1e-7
        assert abs(c[u.argmax()] - 1 / (n + 1)) < 0.01


@some
@given(seeds, st.integers(-12, 12))
def test_confidence_is_continuous_also_where_all_calibration_is_in_one_bin(seed, power) -> None:
    subject, labels = Subject("diag").fit(), torch.empty(0)
    mean = subject.module.moments.mean
    ray = draw(seed, 1) - mean
    ray = 1.3 * 2.0**power * ray / subject(mean + ray, labels)[0]
    subject.calibrate((mean + ray).expand(100, -1), labels)
    subject.module.commit()
    inside = -6 <= power < 10  # of the bins that are not open
    factor = torch.linspace(0.99, 1.01, 2001) if inside else torch.linspace(0, 4, 2001)
    steps = subject.confidence(mean + factor.double()[:, None] * ray, labels)[0]
    assert steps.diff().max() <= 1e-9
    assert steps.diff().min() > -0.02
    if inside:
        torch.testing.assert_close(steps[[0, -1]], torch.tensor([1, 1 / 101], dtype=torch.float64))


@pytest.mark.parametrize("kind", [*KINDS, "residual"])
def test_confidence_without_a_calibration_is_one_and_a_moved_ruler_has_none(kind: str) -> None:
    subject = Subject(kind).fit()
    x, labels = subject.draw(4)
    assert (subject.confidence(x, labels) == 1).all()
    subject.calibrated()
    assert (subject.confidence(x, labels) < 1).any()
    subject.calibrate(x, labels)  # with the old ruler
    subject.fit(5)
    assert (subject.confidence(x, labels) == 1).all()
    subject.calibrated()
    assert (subject.confidence(x, labels) < 1).any()


@pytest.mark.parametrize("kind", [*KINDS, "residual"])
def test_confidence_of_nan_is_nan_and_of_an_overflow_is_the_lowest(kind: str) -> None:
    subject = Subject(kind, torch.float32).fit().calibrated(n=9)
    x, labels = subject.draw(4, 2)
    x[0, 0], x[1] = float("nan"), 1e30
    confidence = subject.confidence(x, labels)
    assert confidence[:, 0].isnan()[0]
    torch.testing.assert_close(confidence[:, 1], torch.full_like(confidence[:, 1], 0.1))


# law 8


@pytest.mark.parametrize("kind", ["diag", "full", "low-rank", "residual"])  # labels on the CPU are looked at
def test_the_host_reads_nothing(kind: str) -> None:
    with FakeTensorMode():  # a tensor without values: to ask for one is an error
        subject = Subject(kind).fit().calibrated()
        x, labels = torch.empty(3, subject.dim, dtype=torch.float64), torch.empty(3, dtype=torch.int64)
        assert subject(x, labels).shape == subject.confidence(x, labels).shape
        with pytest.raises(DataDependentOutputException):
            subject.module.moments.weight.item()


@some
@given(seeds, subjects, st.sampled_from(DTYPES))
def test_computed_in_float32_or_wider(seed, kind, dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    subject, exact = Subject(kind, torch.float32).fit().calibrated(), Subject(kind, torch.float32).fit().calibrated()
    subject.module.to(dtype)
    exact.module.double()
    for name, buffer in subject.module.named_buffers():
        assert not buffer.is_floating_point() or buffer.dtype == wide, name
    x, labels = subject.draw(seed)
    x = x.to(dtype)
    found, confidence = subject(x, labels), subject.confidence(x, labels)
    assert found.dtype == confidence.dtype == wide
    torch.testing.assert_close(found.double(), exact(x.double(), labels), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(confidence.double(), exact.confidence(x.double(), labels), rtol=1e-3, atol=1e-3)
    for each, rows in ((subject, x), (exact, x.double())):
        each.accumulate(rows, labels)
    torch.testing.assert_close(
        subject.module.moments.new_scatter.double(), exact.module.moments.new_scatter, rtol=1e-4, atol=1e-4
    )


@some
@given(seeds, subjects)
def test_autocast_does_not_narrow_and_inference_mode_leaves_ordinary_buffers(seed, kind) -> None:
    plain, other = (Subject(kind, torch.float32).fit().calibrated() for _ in range(2))
    x, labels = plain.draw(seed)
    expected = plain(x, labels), plain.confidence(x, labels)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = other(x, labels), other.confidence(x, labels)
        other.calibrate(x, labels)
        other.module.commit()
        other.accumulate(x, labels)
        other.module.commit()
    plain.calibrate(x, labels)
    plain.module.commit()
    plain.accumulate(x, labels)
    plain.module.commit()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    assert_same(other.module, state(plain.module))
    assert not any(buffer.is_inference() for buffer in other.module.buffers())


@settings(max_examples=12, deadline=None)
@given(seeds, subjects, st.sampled_from([torch.float32, torch.float64]))
def test_copies_pickles_and_reloads_go_on_bit_for_bit(seed, kind, dtype) -> None:
    subject = Subject(kind, dtype, decay=0.5).fit().calibrated()
    subject.accumulate(*subject.draw(seed))  # in the middle of everything
    subject.calibrate(*subject.draw(seed))
    file = io.BytesIO()
    torch.save(subject.module.state_dict(), file)
    file.seek(0)
    loaded = Subject(kind, dtype, decay=0.5).module
    loaded.load_state_dict(torch.load(file, weights_only=True))
    before, x, labels = state(subject.module), *subject.draw(seed + 1)
    for module in (copy.deepcopy(subject.module), pickle.loads(pickle.dumps(subject.module)), loaded):
        assert_same(module, before)
        other, reference = Subject(kind, dtype), Subject(kind, dtype)
        other.module, reference.module = module, copy.deepcopy(subject.module)
        for each in (other, reference):
            each.accumulate(x, labels)
            each.module.commit()
            each.calibrate(x, labels)
            each.module.commit()
        assert_same(module, state(reference.module))
        assert torch.equal(other.confidence(x, labels), reference.confidence(x, labels))


@pytest.mark.compiles
def test_compiled_in_one_graph_equals_eager() -> None:
    made = {kind: Subject(kind, torch.float32).fit().calibrated() for kind in (*KINDS, "residual")}
    x, labels = draw(3, 24, sum(DIMS.values()), torch.float32), classes_of(3)

    def every(x: Tensor, kinds: tuple[str, ...]) -> list[Tensor]:
        found: list[Tensor] = []
        for subject in (made[kind] for kind in kinds):
            found += [subject(x[:, : subject.dim], labels), subject.confidence(x[:, : subject.dim], labels)]
            found += [subject.module(x[:, :DIM])[None]] if subject.labelled else []
        return found

    def gradients(every: Callable[..., list[Tensor]], kinds: tuple[str, ...]) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        found = every(leaf, kinds)
        return [*(each.detach() for each in found), *torch.autograd.grad(sum(u.sum() for u in found), leaf)]

    everywhere, fused = ("diag", "full", "low-rank classes", "residual"), ("classes",)
    torch._dynamo.reset()
    traced = torch.compile(every, fullgraph=True, backend="aot_eager")
    for function, kinds in ((traced, everywhere), (fullgraph(every), fused)):
        for found, expected in zip(gradients(function, kinds), gradients(every, kinds), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
