"""Laws 1 (estimator), 2 (measure) and 8 (all rooms) for balancekit.uncertainty."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from balancekit.uncertainty import (
    DeepEnsemble,
    MCDropout,
    dropout_confidence,
    dropout_std,
    expected_entropy,
    exponential_confidence,
    linear_dropout_moments,
    mutual_information,
    predictive_entropy,
    variation_ratio,
)

MEASURES = [predictive_entropy, expected_entropy, mutual_information, variation_ratio]
NAN, INF = float("nan"), float("inf")
seeds = st.integers(0, 2**31)


class Net(nn.Module):
    """Dropout twice, batch normalisation, and a buffer that every pass in train mode changes."""

    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.4))
        self.last = nn.Sequential(nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 4))
        self.register_buffer("passes", torch.zeros(()))
        self.calls_left = INF

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.training:
            self.passes += 1
        self.calls_left -= 1
        if self.calls_left < 0:
            raise OverflowError
        hidden = self.first(x)
        return {"hidden": hidden, "logits": self.last(hidden)}


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Net().eval()


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state_of(model: nn.Module) -> tuple[list[bool], dict[str, Tensor]]:
    return [m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}


def assert_same_state(a: tuple[list[bool], dict[str, Tensor]], b: tuple[list[bool], dict[str, Tensor]]) -> None:
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys()
    assert all(torch.equal(value, b[1][key]) for key, value in a[1].items())


# Law 1: estimator


@settings(max_examples=25, deadline=None)
@given(seed=seeds, samples=st.integers(2, 7), chunk=st.integers(1, 8), batch=st.integers(1, 4), mode=st.booleans())
def test_inputs_to_samples_and_everything_as_before(
    seed: int, samples: int, chunk: int, batch: int, mode: bool
) -> None:
    model = net()
    model.train(mode)
    model.last.eval()
    x = features(seed, batch, 3)
    before, stream = state_of(model), torch.get_rng_state()
    out = MCDropout(model, samples, chunk_size=chunk)(x, generator=torch.Generator().manual_seed(seed))
    assert out["logits"].shape == (samples, batch, 4)
    assert out["hidden"].shape == (samples, batch, 16)
    assert out["logits"].std(0).max() > 0
    assert_same_state(state_of(model), before)
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(x, features(seed, batch, 3))


@settings(max_examples=25, deadline=None)
@given(calls=st.integers(0, 3), chunk=st.integers(1, 3), mode=st.booleans())
def test_modes_and_buffers_come_back_when_the_model_raises(calls: int, chunk: int, mode: bool) -> None:
    model = net()
    model.train(mode)
    model.calls_left = calls
    before, stream = state_of(model), torch.get_rng_state()
    with pytest.raises(OverflowError):
        MCDropout(model, 12, chunk_size=chunk)(features(0, 2, 3), generator=torch.Generator())
    assert_same_state(state_of(model), before)
    assert torch.equal(torch.get_rng_state(), stream)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, samples=st.integers(2, 6), chunk=st.integers(1, 6))
def test_equal_generators_give_equal_samples_and_one_seed_is_drawn(seed: int, samples: int, chunk: int) -> None:
    estimator, x = MCDropout(net(), samples, chunk_size=chunk), features(1, 3, 3)
    generator, other = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    first = estimator(x, generator=generator)["logits"]
    assert torch.equal(first, estimator(x, generator=other)["logits"])
    assert not torch.equal(first, estimator(x, generator=generator)["logits"])
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(2):
        torch.randint(2**63 - 1, (), generator=drawn)
    assert torch.equal(generator.get_state(), drawn.get_state())


@settings(max_examples=25, deadline=None)
@given(seed=seeds, samples=st.integers(2, 7), chunk=st.integers(1, 8), backend=st.sampled_from(["loop", "vmap"]))
def test_a_stream_is_the_call_in_parts(seed: int, samples: int, chunk: int, backend: str) -> None:
    chunk += backend == "vmap"
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Dropout(0.1)), features(1, 2, 3)
    estimator = MCDropout(model, samples, chunk_size=chunk, backend=backend)  # type: ignore[arg-type]
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    parts = []
    for part in estimator.stream(x, generator=generators[0]):
        torch.rand(3)  # what others draw meanwhile does not matter
        assert all(module.training for module in model.modules())
        parts.append(part)
    assert all(len(part) <= chunk for part in parts)
    assert torch.equal(torch.cat(parts), estimator(x, generator=generators[1]))
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


@settings(max_examples=25, deadline=None)
@given(seed=seeds, samples=st.integers(2, 5), more=st.integers(1, 5))
def test_first_samples_stay_when_samples_grow(seed: int, samples: int, more: int) -> None:
    model, x = net(), features(1, 2, 3)
    few = MCDropout(model, samples)(x, generator=torch.Generator().manual_seed(seed))["logits"]
    many = MCDropout(model, samples + more)(x, generator=torch.Generator().manual_seed(seed))["logits"]
    assert torch.equal(many[:samples], few)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, samples=st.integers(2, 5))
def test_without_a_generator_the_global_stream_advances_as_in_training(seed: int, samples: int) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
    x = features(2, 4, 3)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        expected = torch.stack([model(x) for _ in range(samples)])
        after = torch.get_rng_state()
        torch.manual_seed(seed)
        assert torch.equal(MCDropout(model.eval(), samples)(x), expected)
        assert torch.equal(torch.get_rng_state(), after)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(2, 6), chunk=st.integers(1, 6), batch=st.integers(1, 5))
def test_nothing_random_is_an_error(samples: int, chunk: int, batch: int) -> None:
    model = nn.Sequential(nn.Linear(3, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 2))
    with pytest.raises(RuntimeError, match="model: expected samples that differ"):
        MCDropout(model, samples, chunk_size=chunk)(features(0, batch, 3))


@pytest.mark.parametrize(("chunk", "backend"), [(1, "loop"), (500, "loop"), (500, "vmap")])
def test_sampled_dropout_agrees_with_its_closed_form(chunk: int, backend: str) -> None:
    n, p, head = 4000, 0.3, nn.Linear(6, 3)
    nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    x = features(4, 2, 6)
    with torch.no_grad():
        model = nn.Sequential(nn.Dropout(p), head)
        estimator = MCDropout(model, n, chunk_size=chunk, backend=backend)  # type: ignore[arg-type]
        samples = estimator(x, generator=torch.Generator().manual_seed(0))
        mean, covariance = linear_dropout_moments(x, head.weight, head.bias, p, covariance="full")
    centred = samples - samples.mean(0)
    found = torch.einsum("sbo,sbq->boq", centred, centred) / (n - 1)
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    assert ((samples.mean(0) - mean).abs() < 4.5 * (variance / n).sqrt()).all()
    assert (found - covariance).norm() / covariance.norm() < 0.08  # 3.5 standard errors


@settings(max_examples=25, deadline=None)
@given(seed=seeds, size=st.integers(1, 4), backend=st.sampled_from(["loop", "vmap"]))
def test_ensemble_stacks_what_its_members_say(seed: int, size: int, backend: str) -> None:
    stream = torch.get_rng_state()
    ensemble = DeepEnsemble.build(Net, size, seed=seed, backend=backend).eval()  # type: ignore[arg-type]
    again = DeepEnsemble.build(Net, size, seed=seed).eval()
    assert torch.equal(torch.get_rng_state(), stream)
    assert_same_state(state_of(ensemble), state_of(again))
    x = features(seed, 3, 3)
    before = state_of(ensemble)
    out = ensemble(x)["logits"]
    assert_same_state(state_of(ensemble), before)
    assert out.shape == (size, 3, 4)
    torch.testing.assert_close(out, torch.stack([member(x)["logits"] for member in ensemble.members]))


# Law 2: measure


@st.composite
def probabilities(draw: st.DrawFn) -> Tensor:
    shape = draw(st.integers(1, 6)), draw(st.integers(0, 4)), draw(st.integers(1, 5))
    logits = features(draw(seeds), *shape) * draw(st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 30.0, 1e30]))
    return logits.to(draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))).softmax(-1)


@settings(max_examples=60, deadline=None)
@given(probs=probabilities())
def test_order_of_the_bounds(probs: Tensor) -> None:
    total, mutual, ratio = predictive_entropy(probs), mutual_information(probs), variation_ratio(probs)
    slack = 0.02 if probs.dtype == torch.bfloat16 else 1e-6  # bfloat16 probabilities do not sum to 1
    assert total.shape == mutual.shape == ratio.shape == probs.shape[1:2]
    assert (mutual >= 0).all()
    assert (mutual <= total).all()
    assert (total <= math.log(probs.shape[-1]) + slack).all()
    assert (ratio >= 0).all()
    assert (ratio <= 1 - 1 / probs.shape[-1] + 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(probs=probabilities(), copies=st.integers(1, 9))
def test_equal_samples_have_nothing_to_disagree_on(probs: Tensor, copies: int) -> None:
    same = probs[:1].expand(copies, *probs.shape[1:])
    ulp = torch.finfo(mutual_information(same).dtype).eps
    assert (mutual_information(same) <= 8 * ulp).all()
    assert (variation_ratio(same) == 0).all()
    torch.testing.assert_close(predictive_entropy(same), predictive_entropy(probs[:1]))


@settings(max_examples=40, deadline=None)
@given(probs=probabilities(), seed=seeds, measure=st.sampled_from(MEASURES))
def test_order_of_samples_does_not_matter(probs: Tensor, seed: int, measure: Callable[[Tensor], Tensor]) -> None:
    order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(measure(probs[order]), measure(probs), atol=2e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, where=st.integers(0, 3), measure=st.sampled_from(MEASURES))
def test_nan_in_one_sample_is_nan_for_that_input_alone(
    seed: int, where: int, measure: Callable[[Tensor], Tensor]
) -> None:
    probs = features(seed, 5, 4, 3).softmax(-1)
    spoiled = probs.clone()
    spoiled[seed % 5, where, seed % 3] = NAN
    expected = measure(probs)
    expected[where] = NAN
    torch.testing.assert_close(measure(spoiled), expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("measure", [predictive_entropy, expected_entropy, mutual_information])
def test_logits_instead_of_probabilities_do_not_pass_for_a_measure(measure: Callable[[Tensor], Tensor]) -> None:
    assert not measure(-1 - features(0, 4, 3, 2).abs()).isfinite().any()


# Confidence


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
    p=st.floats(0, 0.99),
    samples=st.integers(2, 30),
    method=st.sampled_from(["expected", "limit", "sampled"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
)
def test_confidence_falls_from_one(
    seed: int, scale: float, p: float, samples: int, method: str, dtype: torch.dtype
) -> None:
    largest = torch.finfo(dtype).max
    x = (scale * features(seed, 2, 3, 4).double()).clamp(-largest, largest).to(dtype).requires_grad_()
    confidence = dropout_confidence(x, p, samples=samples, method=method)  # type: ignore[arg-type]
    assert confidence.shape == (2, 3)
    assert confidence.dtype == torch.promote_types(dtype, torch.float32)
    assert not confidence.requires_grad
    assert (confidence <= 1).all()
    assert (confidence >= 0).all()  # 0 where the exponential underflows
    assert scale > 1 or (confidence > 0).all()
    assert p > 0 or (confidence == 1).all()
    if scale == 0:
        assert (confidence >= 1 - 64 * torch.finfo(confidence.dtype).eps).all()


@pytest.mark.parametrize("method", ["expected", "limit", "sampled"])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_nan_in_a_feature_is_nan_in_its_token_alone(method: str, p: float) -> None:
    x = torch.ones(3, 4)
    x[1, 2] = NAN
    confidence = dropout_confidence(x, p, method=method)  # type: ignore[arg-type]
    assert confidence.isnan().tolist() == [False, True, False]
    assert dropout_std(x, p).isnan().equal(x.isnan())


@settings(max_examples=30, deadline=None)
@given(seed=seeds, p=st.floats(0.01, 0.9), samples=st.integers(2, 30))
def test_confidence_falls_with_magnitude_and_the_limit_is_the_lower_bound(seed: int, p: float, samples: int) -> None:
    x = features(seed, 6, 5).double()
    expected, limit = dropout_confidence(x, p, samples=samples), dropout_confidence(x, p, method="limit")
    assert (dropout_confidence(2 * x, p, samples=samples) < expected).all()
    assert (limit <= expected + 1e-12).all()  # Jensen
    assert torch.equal(dropout_confidence(-x, p, samples=samples), expected)


@settings(max_examples=30, deadline=None)
@given(doubt=st.floats(0, 1e30), more=st.floats(0, 1e30), rate=st.floats(1e-3, 1e3))
def test_exponential_confidence_falls_from_one(doubt: float, more: float, rate: float) -> None:
    low, high = exponential_confidence(torch.tensor([doubt, doubt + more], dtype=torch.float64), rate)
    assert 0 <= high <= low <= 1
    assert exponential_confidence(torch.zeros(2), rate).tolist() == [1, 1]
    assert exponential_confidence(torch.full((1,), NAN)).isnan().all()


@settings(max_examples=25, deadline=None)
@given(seed=seeds, samples=st.integers(2, 40), p=st.floats(0.0, 0.9))
def test_a_draw_of_the_std_is_repeatable_and_leaves_the_global_stream(seed: int, samples: int, p: float) -> None:
    x, stream = features(seed, 4, 5), torch.get_rng_state()
    draws = [dropout_std(x, p, samples=samples, generator=torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), stream)
    largest = x.abs() / (1 - p) * math.sqrt(samples // 2 * (samples - samples // 2) / (samples * (samples - 1)))
    assert (draws[0] >= 0).all()
    assert (draws[0] <= largest * (1 + 1e-6)).all()


# Law 8: all rooms


def every_function(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    probs = x.softmax(-1)
    return (
        dropout_std(x),
        dropout_confidence(x),
        dropout_confidence(x, 0.1, rate=1.0, samples=5, method="limit"),
        exponential_confidence(dropout_std(x, 0.5), 2.0),
        *linear_dropout_moments(x, weight, bias),
        linear_dropout_moments(x, weight, bias, 0.2, covariance="full")[1],
        *(measure(probs) for measure in MEASURES),
    )


@pytest.mark.compiles
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_full_graph_compile_equals_eager(dtype: torch.dtype) -> None:
    inputs = [features(i, *shape).to(dtype) for i, shape in enumerate([(3, 4, 5), (2, 5), (2,)])]
    torch._dynamo.reset()
    backend = "inductor" if dtype == torch.float32 else "aot_eager"
    compiled = torch.compile(every_function, fullgraph=True, backend=backend)(*inputs)
    for found, expected in zip(compiled, every_function(*inputs), strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=2e-2 if found.dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.compiles
def test_sampled_forms_compile_in_one_graph() -> None:
    def draw(x: Tensor) -> tuple[Tensor, Tensor]:
        return dropout_std(x, samples=20), dropout_confidence(x, method="sampled")

    torch._dynamo.reset()
    x = torch.ones(2000, 3)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        std, confidence = torch.compile(draw, fullgraph=True, backend="aot_eager")(x)
        torch.manual_seed(0)
        for found, expected in zip((std, confidence), draw(x), strict=True):
            torch.testing.assert_close(found, expected)
    assert abs(std.mean() - 0.650233) < 4 * 0.076 / math.sqrt(x.numel())
    assert abs(confidence.mean() - dropout_confidence(x).mean()) < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_equals_float32_on_the_same_numbers(dtype: torch.dtype) -> None:
    def call(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        moments = linear_dropout_moments(x, weight, bias, covariance="full")
        measures = [measure(x.abs().div(256)) for measure in MEASURES]
        return [dropout_confidence(x), exponential_confidence(x.abs(), 0.1), *moments, *measures]

    inputs = [(50 * features(i, *shape)).to(dtype) for i, shape in enumerate([(3, 4, 5), (2, 5), (2,)])]
    with torch.autocast("cpu", dtype=dtype):
        half = call(*inputs)
    for found, expected in zip(half, call(*(value.float() for value in inputs)), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    std = dropout_std(inputs[0])
    assert std.dtype == dtype
    assert torch.equal(std, dropout_std(inputs[0].float()).to(dtype))


@pytest.mark.parametrize("kind", ["mc", "ensemble", "vmap"])
def test_copies_and_reloads_are_the_same_estimator(kind: str) -> None:
    def make(seed: int) -> nn.Module:
        if kind == "mc":
            model = net(seed)
            return MCDropout(model, 4, exclude=[model.first])
        return DeepEnsemble.build(Net, 3, seed=seed, backend="vmap" if kind == "vmap" else "loop").eval()

    def call(estimator: nn.Module) -> Tensor:
        options = {"generator": torch.Generator().manual_seed(0)} if kind == "mc" else {}
        return estimator(features(0, 2, 3), **options)["logits"]

    estimator, file = make(0), io.BytesIO()
    torch.save(estimator.state_dict(), file)
    file.seek(0)
    reloaded = make(1)
    assert not torch.equal(call(reloaded), call(estimator))
    reloaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator)), reloaded):
        assert torch.equal(call(other), call(estimator))


def same_draw(function: Callable[..., Tensor], **options: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x, **options, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "function",
    [
        dropout_std,
        same_draw(dropout_std, samples=5),
        partial(dropout_confidence, detach=False),
        partial(dropout_confidence, p=0.1, samples=5, rate=0.7, detach=False),
        partial(dropout_confidence, method="limit", detach=False),
        same_draw(dropout_confidence, method="sampled", detach=False),
        lambda x: exponential_confidence(x.abs()),
    ],
)
def test_gradients_reach_the_features(function: Callable[[Tensor], Tensor]) -> None:
    x = features(0, 3, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    zero = torch.zeros(2, requires_grad=True)
    function(zero).sum().backward()
    assert zero.grad is not None
    assert torch.equal(zero.grad, torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["expected", "limit", "sampled"])
def test_features_are_left_as_they_are(method: str, dtype: torch.dtype) -> None:
    x = features(0, 3, 4).to(dtype)
    before = x.clone()
    dropout_confidence(x, method=method)  # type: ignore[arg-type]
    dropout_std(x)
    dropout_std(x, samples=4)
    assert torch.equal(x, before)


def test_checks_read_no_values() -> None:
    """A fake tensor has none: reading one raises."""
    shapes = [(3, 4, 5), (2, 5), (2,)]
    expected = [out.shape for out in every_function(*map(torch.ones, shapes))]
    with FakeTensorMode():
        assert [out.shape for out in every_function(*map(torch.ones, shapes))] == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_entropy_never_exceeds_log_c(dtype: torch.dtype) -> None:
    for classes in range(1, 12):
        probs = torch.full((3, 4, classes), 1 / classes, dtype=dtype)
        entropy, information = predictive_entropy(probs), mutual_information(probs)
        assert (entropy <= math.log(classes)).all()
        assert (information >= 0).all()
        assert (information <= entropy).all()


def test_measures_of_saturated_probabilities_have_a_finite_gradient() -> None:
    logits = (200 * features(0, 5, 2, 3)).requires_grad_()
    mutual_information(logits.softmax(-1)).sum().backward()
    assert logits.grad.isfinite().all()
