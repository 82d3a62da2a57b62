"""Laws 1, 2 and 8 at the edge: every part of balancekit.uncertainty on inputs that hold, lie or number oddly."""

import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from balancekit.uncertainty import (
    CrossModalResidual,
    DeepEnsemble,
    FeatureDensity,
    MCDropout,
    ProbabilisticQuery,
    ProbabilitySummary,
    ValueSummary,
    area_under_risk_coverage,
    brier_score,
    dropout_confidence,
    dropout_std,
    expected_entropy,
    exponential_confidence,
    linear_dropout_moments,
    mutual_information,
    negative_log_likelihood,
    predictive_entropy,
    risk_coverage,
    sample_spread,
    standard_normal_divergence,
    variation_ratio,
)
from tests.degenerate import LAYOUTS, batches, broken, counts, dtypes, filled, finite, laid, layouts, seeds

SAMPLES, BATCH, TOKENS, DIM = 3, 5, 2, 4
law = settings(max_examples=10, deadline=None)
narrow = st.sampled_from((torch.float16, torch.bfloat16, torch.float32))
halves = st.sampled_from((torch.float16, torch.bfloat16))
selections = st.lists(st.integers(0, BATCH - 1), max_size=BATCH)  # none, one, several, in any order, one twice


class Part(NamedTuple):
    """A function of one tensor that treats the entries along an axis, the batch, one by one."""

    call: Callable[[Tensor], Any]
    over: str = "features"  # "b n d", or samples "s b d" of values, or of probabilities
    out: int = 0  # the axis of the batch in the result
    squares: bool = False  # may overflow where the square of an input does
    bounded: bool = False  # has a finite limit where an input is infinite

    @property
    def axis(self) -> int:
        return 0 if self.over == "features" else 1

    def draw(self, kind: str, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
        shape = (BATCH, TOKENS, DIM) if self.over == "features" else (SAMPLES, BATCH, DIM)
        x = filled(kind, *shape, seed=seed, dtype=dtype)
        return x.softmax(-1) if self.over == "probs" else x

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        found = self.call(x)
        return found if isinstance(found, tuple) else (found,)


def fitted(kind: str) -> nn.Module:
    """A density or residual of standard normal features, calibrated, in float32."""
    make: dict[str, Callable[[], nn.Module]] = {
        "diag": lambda: FeatureDensity(DIM),
        "full": lambda: FeatureDensity(DIM, covariance="full"),
        "low-rank": lambda: FeatureDensity(DIM, covariance="low-rank", rank=2),
        "residual": lambda: CrossModalResidual({"rgb": 2, "depth": 2}),
    }
    module = make[kind]()
    for step in (module.accumulate, module.calibrate):
        x = filled("plain", 40, DIM, seed=7)
        step(split(x) if kind == "residual" else x)
        module.commit()
    return module


def split(x: Tensor) -> dict[str, Tensor]:
    return {"rgb": x[..., :2], "depth": x[..., 2:]}


def moments(x: Tensor) -> tuple[Tensor, ...]:
    weight, bias = WEIGHT.to(x.dtype), BIAS.to(x.dtype)
    return linear_dropout_moments(x, weight, bias) + linear_dropout_moments(x, weight, covariance="full")


def no_labels(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[1], dtype=torch.int64)


def probability_statistics(probs: Tensor) -> tuple[Tensor, ...]:
    summary = ProbabilitySummary()
    summary.update(probs)
    return tuple(summary.compute())[:-1]


def value_statistics(values: Tensor) -> tuple[Tensor, ...]:
    summary = ValueSummary()
    summary.update(values, variance=values.abs())
    return tuple(summary.compute())[:-1]


WEIGHT, BIAS = (filled("plain", *shape, seed=1, dtype=torch.bfloat16) for shape in ((3, DIM), (3,)))
MEASURES = {f.__name__: f for f in (predictive_entropy, expected_entropy, mutual_information, variation_ratio)}
DENSITIES = {kind: fitted(kind) for kind in ("diag", "full", "low-rank", "residual")}
RESIDUAL = DENSITIES.pop("residual")
PARTS = {
    "dropout_std": Part(dropout_std),
    "dropout_confidence": Part(dropout_confidence, bounded=True),
    "dropout_confidence, limit": Part(partial(dropout_confidence, method="limit"), bounded=True),
    "exponential_confidence": Part(lambda x: exponential_confidence(x.abs()), bounded=True),
    "linear_dropout_moments": Part(moments, squares=True),
    "standard_normal_divergence": Part(lambda x: standard_normal_divergence(x, log_variance=x), squares=True),
    **{f"density, {kind}": Part(module, squares=True) for kind, module in DENSITIES.items()},
    "density, confidence": Part(DENSITIES["full"].confidence, squares=True, bounded=True),
    "residual": Part(lambda x: tuple(RESIDUAL(split(x)).values()), squares=True),
    "residual, confidence": Part(lambda x: tuple(RESIDUAL.confidence(split(x)).values()), squares=True, bounded=True),
    "sample_spread": Part(sample_spread, "samples", squares=True),
    "negative_log_likelihood": Part(lambda x: negative_log_likelihood(x, no_labels(x)), "samples", bounded=True),
    "value summary": Part(value_statistics, "samples", squares=True),
    **{name: Part(measure, "probs", bounded=name == "variation_ratio") for name, measure in MEASURES.items()},
    "mutual_information, corrected": Part(partial(mutual_information, corrected=True), "probs"),
    "brier_score": Part(lambda x: brier_score(x, no_labels(x)), "probs"),
    "probability summary": Part(probability_statistics, "probs", bounded=True),
}
every = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


def assert_same(
    found: tuple[Tensor, ...], expected: tuple[Tensor, ...], rtol: float = 1e-5, atol: float = 1e-5
) -> None:
    for a, e in zip(found, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=rtol, atol=atol, equal_nan=True)


def close(found: Tensor, expected: Tensor, x: Tensor) -> None:
    """To rounding, in this dtype, of the largest number that went in."""
    eps, largest = 16 * torch.finfo(found.dtype).eps, float(x.abs().max()) if x.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=eps, atol=eps * max(largest, 1.0), equal_nan=True)


# What holds for every part


@every
@law
@given(seed=seeds, kind=finite, dtype=dtypes)
def test_how_the_input_lies_in_memory_changes_nothing_and_it_stays_as_it_is(
    part: Part, seed: int, kind: str, dtype: torch.dtype
) -> None:
    for layout in LAYOUTS:
        x = laid(part.draw(kind, seed, dtype), layout)
        before = x.clone(memory_format=torch.contiguous_format)
        assert_same(part(x), part(before))
        assert torch.equal(x, before)


@every
@law
@given(seed=seeds, kind=finite, rows=selections)
def test_a_selection_of_the_batch_gives_that_selection_of_the_result(
    part: Part, seed: int, kind: str, rows: list[int]
) -> None:
    x, index = part.draw(kind, seed), torch.tensor(rows, dtype=torch.int64)
    expected = tuple(whole.index_select(part.out, index) for whole in part(x))
    assert_same(part(x.index_select(part.axis, index)), expected)


@every
@law
@given(seed=seeds, kind=broken, row=st.integers(0, BATCH - 1), place=st.integers(0, DIM - 1))
def test_a_broken_number_reaches_the_result_of_its_sample_and_no_other(
    part: Part, seed: int, kind: str, row: int, place: int
) -> None:
    x = part.draw("plain", seed)
    spoiled = x.clone()
    spoiled.select(part.axis, row)[0, place] = float(kind)
    others = torch.tensor([i for i in range(BATCH) if i != row])
    found, clean = part(spoiled), part(x)
    for a, e in zip(found, clean, strict=True):
        assert torch.equal(a.index_select(part.out, others), e.index_select(part.out, others))
    if kind == "nan" or not part.bounded:
        assert any(not a.select(part.out, row).isfinite().all() for a in found)


@every
@law
@given(seed=seeds, kind=finite, dtype=narrow)
def test_at_the_edge_of_the_range_a_result_is_right_or_not_finite(
    part: Part, seed: int, kind: str, dtype: torch.dtype
) -> None:
    """Against the same numbers in float64. Only where a square of 1e30 would overflow may a result be infinite."""
    x = part.draw(kind, seed, dtype)
    largest = 1.0 if part.bounded else max(1.0, float(x.abs().max()))
    for a, exact in zip(part(x), part(x.double()), strict=True):
        keep = a.isfinite()
        rtol = 3 * torch.finfo(a.dtype).eps + 1e-4
        torch.testing.assert_close(a[keep].double(), exact[keep].double(), rtol=rtol, atol=1e-5 * largest)
        assert keep.all() or (part.squares and kind == "huge")


@every
@law
@given(seed=seeds, dtype=halves)
def test_half_precision_equals_float32_on_the_same_numbers(part: Part, seed: int, dtype: torch.dtype) -> None:
    x = part.draw("plain", seed, dtype)
    for a, wide in zip(part(x), part(x.float()), strict=True):
        assert a.dtype in (dtype, torch.float32)
        assert torch.equal(a, wide.to(a.dtype))


def test_features_and_weights_of_two_dtypes_have_their_moments_in_the_wider_one() -> None:
    x, weight, bias = (filled("plain", *shape, seed=0, dtype=torch.float16) for shape in ((2, DIM), (3, DIM), (3,)))
    expected = linear_dropout_moments(x.double(), weight.double(), bias.double())
    for found in (
        linear_dropout_moments(x.double(), weight.float(), bias),
        linear_dropout_moments(x, weight.double(), bias.float()),
    ):
        assert_same(found, expected)


# Law 2, at what float16 and one-sided probabilities hold


@law
@given(seed=seeds, kind=finite, dtype=dtypes, layout=layouts, size=counts)
def test_bounds_of_the_measures(seed: int, kind: str, dtype: torch.dtype, layout: str, size: int) -> None:
    probs = laid(filled(kind, size, BATCH, DIM, seed=seed, dtype=dtype).softmax(-1), layout)
    total, mutual = predictive_entropy(probs), mutual_information(probs)
    assert (mutual >= 0).all() and (mutual <= total).all() and (total <= torch.tensor(float(DIM)).log()).all()
    assert (mutual_information(probs[:1].expand(size, -1, -1)) <= 8 * torch.finfo(mutual.dtype).eps).all()


@law
@given(seed=seeds, kind=finite, dtype=narrow, layout=layouts)
def test_risk_and_coverage(seed: int, kind: str, dtype: torch.dtype, layout: str) -> None:
    doubt, losses = (laid(filled(kind, BATCH, seed=seed + i, dtype=dtype), layout) for i in range(2))
    exact = risk_coverage(doubt.double(), losses.double())
    assert_same(tuple(x.double() for x in risk_coverage(doubt, losses)), exact, rtol=1e-5)
    assert area_under_risk_coverage(doubt, losses).isfinite()


# Law 1: estimators


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(DIM, 6), nn.BatchNorm1d(6), nn.Dropout(0.4), nn.Linear(6, 3)).to(dtype).eval()


ESTIMATORS: dict[str, dict[str, Any]] = {
    "one a pass": {},
    "chunks": {"chunk_size": 3},
    "vmap": {"chunk_size": 3, "backend": "vmap"},
}
estimators = pytest.mark.parametrize("options", ESTIMATORS.values(), ids=ESTIMATORS)


def sampled(options: dict[str, Any], x: Tensor) -> Tensor:
    with torch.no_grad():
        return MCDropout(net(x.dtype), 4, **options)(x, generator=torch.Generator().manual_seed(1))


@estimators
@law
@given(seed=seeds, kind=finite, dtype=dtypes, size=batches, layout=layouts)
def test_dropout_makes_samples_of_every_batch_however_it_lies(
    options: dict[str, Any], seed: int, kind: str, dtype: torch.dtype, size: int, layout: str
) -> None:
    stream = torch.get_rng_state()
    x = filled(kind, size, DIM, seed=seed, dtype=dtype, layout=layout)
    before = x.clone(memory_format=torch.contiguous_format)
    samples = sampled(options, x)
    assert samples.shape == (4, size, 3) and samples.dtype == dtype
    assert kind == "huge" or samples.isfinite().all()
    close(samples, sampled(options, before), x)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), stream)


@estimators
@law
@given(seed=seeds, kind=broken, row=st.integers(0, BATCH - 1))
def test_a_broken_number_reaches_all_samples_of_its_input_and_no_buffer(
    options: dict[str, Any], seed: int, kind: str, row: int
) -> None:
    x, model = filled("plain", BATCH, DIM, seed=seed), net()
    clean, before = sampled(options, x), copy.deepcopy(model.state_dict())
    x[row, 1] = float(kind)
    samples = MCDropout(model, 4, **options)(x, generator=torch.Generator().manual_seed(1))
    others = [i for i in range(BATCH) if i != row]
    assert torch.equal(samples[:, others], clean[:, others])
    assert not samples[:, row].isfinite().any()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@law
@given(seed=seeds, kind=finite, dtype=dtypes, size=batches, members=counts, data=st.data())
def test_an_ensemble_of_any_size_follows_its_members(
    backend: str, seed: int, kind: str, dtype: torch.dtype, size: int, members: int, data: st.DataObject
) -> None:
    """Members in another order give samples in that order; of each batch, in each dtype and layout."""
    ensemble = DeepEnsemble.build(lambda: nn.Linear(DIM, 3).to(dtype), members, seed=seed)
    order = data.draw(st.permutations(range(members)))
    other = DeepEnsemble([ensemble.members[i] for i in order], backend=backend)  # type: ignore[arg-type]
    x = filled(kind, size, DIM, seed=seed, dtype=dtype, layout=data.draw(layouts))
    samples = ensemble(x)
    assert samples.shape == (members, size, 3) and samples.dtype == dtype
    close(other(x), samples[order], x)


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@law
@given(seed=seeds, kind=broken, row=st.integers(0, BATCH - 1), members=counts)
def test_a_broken_number_reaches_every_member_for_its_input_alone(
    backend: str, seed: int, kind: str, row: int, members: int
) -> None:
    ensemble = DeepEnsemble.build(lambda: nn.Linear(DIM, 3), members, seed=seed, backend=backend)  # type: ignore[arg-type]
    x = filled("plain", BATCH, DIM, seed=seed)
    clean = ensemble(x)
    x[row, 2] = float(kind)
    samples, others = ensemble(x), [i for i in range(BATCH) if i != row]
    assert torch.equal(samples[:, others], clean[:, others])
    assert not samples[:, row].isfinite().any()


# Probabilistic query


@law
@given(seed=seeds, kind=finite, dtype=dtypes, size=batches, tokens=st.integers(0, 2), layout=layouts)
def test_a_query_of_any_tokens(seed: int, kind: str, dtype: torch.dtype, size: int, tokens: int, layout: str) -> None:
    head = ProbabilisticQuery(DIM, dtype=dtype)
    x = filled(kind, size, tokens, DIM, seed=seed, dtype=dtype, layout=layout)
    query = head(x)
    assert torch.equal(query.mean, x)  # the start: the token itself
    assert query.confidence.shape == (size, tokens) and query.confidence.isfinite().all()
    drawn_once = query.draw(generator=torch.Generator().manual_seed(0))
    assert drawn_once.dtype == dtype and drawn_once.isfinite().all()


@law
@given(seed=seeds, kind=broken, row=st.integers(0, BATCH - 1))
def test_a_broken_token_is_doubted_alone(seed: int, kind: str, row: int) -> None:
    head, x = ProbabilisticQuery(DIM), filled("plain", BATCH, TOKENS, DIM, seed=seed)
    for parameter in head.parameters():
        nn.init.uniform_(parameter, -0.1, 0.1)
    clean = head(x)
    x[row, 0, 1] = float(kind)
    found, others = head(x), [i for i in range(BATCH) if i != row]
    for name in ("mean", "log_variance", "confidence"):
        assert torch.equal(getattr(found, name)[others], getattr(clean, name)[others])
        assert torch.equal(getattr(found, name)[row, 1], getattr(clean, name)[row, 1])
    assert not found.mean[row, 0].isfinite().any()
    assert not found.log_variance[row, 0].isfinite().any()


# Statistics of clean data that are anything but


def make(kind: str, widths: list[int], dtype: torch.dtype = torch.float32) -> nn.Module:
    options: dict[str, dict[str, Any]] = {
        "diag": {},
        "full": {"covariance": "full"},
        "low-rank": {"covariance": "low-rank", "rank": 1},
    }
    if kind in options:
        return FeatureDensity(sum(widths), **options[kind]).to(dtype)
    named = {f"m{i}": width for i, width in enumerate(widths)}
    return CrossModalResidual(named, covariance="full" if "full" in kind else "diag").to(dtype)


def of(module: nn.Module, x: Tensor) -> Any:
    """What the module is called with: the features, or each modality's."""
    if isinstance(module, FeatureDensity):
        return x
    return dict(zip(module.dims, x.split(list(module.dims.values()), -1), strict=True))


def uncertainty(module: nn.Module, x: Tensor) -> Tensor:
    found = module(of(module, x))
    return torch.stack(list(found.values())) if isinstance(found, dict) else found


RULERS = ("diag", "full", "low-rank", "residual", "full residual")
rulers = pytest.mark.parametrize("kind", RULERS)


@rulers
@law
@given(seed=seeds, held=finite, dtype=dtypes, modalities=st.integers(2, 8), size=batches)
def test_statistics_of_degenerate_data_are_finite_and_so_is_what_they_say(
    kind: str, seed: int, held: str, dtype: torch.dtype, modalities: int, size: int
) -> None:
    """Of no data, and of such whose scatter overflows, it is NaN as before; of one huge sample it may be infinite."""
    module = make(kind, [1] * modalities)
    module.accumulate(of(module, filled(held, size, modalities, seed=seed, dtype=dtype)))
    module.commit()
    assert all(value.isfinite().all() for value in module.moments.buffers())
    doubt = uncertainty(module, filled("plain", 3, modalities, seed=seed + 1, dtype=dtype))
    learnt = module.moments.seen.all()
    assert learnt == (size > 0) or held == "huge"
    assert doubt.isnan().all() if not learnt else doubt.isfinite().all() or held == "huge"


@rulers
@law
@given(seed=seeds, dtype=dtypes, layout=layouts)
def test_statistics_do_not_depend_on_how_the_data_lie(kind: str, seed: int, dtype: torch.dtype, layout: str) -> None:
    one, other = make(kind, [2, 1]), make(kind, [2, 1])
    x = filled("plain", 8, 3, seed=seed, dtype=dtype, layout=layout)
    before = x.clone(memory_format=torch.contiguous_format)
    for module, data in ((one, x), (other, before)):
        module.accumulate(of(module, data))
        module.commit()
        module.calibrate(of(module, data))
        module.commit()
    assert torch.equal(x, before)
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6, equal_nan=True, msg=name)


@rulers
@law
@given(seed=seeds, held=broken)
def test_of_broken_data_alone_nothing_is_learnt(kind: str, seed: int, held: str) -> None:
    module = make(kind, [2, 1])
    before = copy.deepcopy(module.state_dict())
    for step in (module.accumulate, module.calibrate):
        step(of(module, filled(held, 4, 3, seed=seed)))
        module.commit()
    assert all(
        torch.equal(value.nan_to_num(), before[name].nan_to_num()) for name, value in module.state_dict().items()
    )
    assert uncertainty(module, filled("plain", 4, 3, seed=seed)).isnan().all()


@rulers
def test_a_copy_of_what_has_seen_nothing_learns_like_the_original(kind: str) -> None:
    module, fresh, file = make(kind, [2, 1]), make(kind, [2, 1]), io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    x = filled("plain", 8, 3, seed=0)
    others = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), fresh]
    for each in (module, *others):
        assert uncertainty(each, x).isnan().all()
        each.accumulate(of(each, x))
        each.commit()
    for other in others:
        assert torch.equal(uncertainty(other, x), uncertainty(module, x))
