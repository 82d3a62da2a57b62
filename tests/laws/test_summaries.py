"""Laws 2 (measure) and 8 (all rooms) for summaries, scores, the spread of samples and the probabilistic query."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from balancekit.uncertainty import (
    GaussianTokens,
    ProbabilisticQuery,
    ProbabilityStatistics,
    ProbabilitySummary,
    ValueStatistics,
    ValueSummary,
    area_under_risk_coverage,
    brier_score,
    expected_entropy,
    exponential_confidence,
    mutual_information,
    negative_log_likelihood,
    predictive_entropy,
    risk_coverage,
    sample_spread,
    standard_normal_divergence,
    variation_ratio,
)

NAN = float("nan")
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
seeds = st.integers(0, 2**31)
scales = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 30.0, 1e30])
Summary = ProbabilitySummary | ValueSummary


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    for name, a, b in zip(found._fields, found, expected, strict=True):
        same = torch.equal(a.nan_to_num(-9), b.nan_to_num(-9)) if isinstance(a, Tensor) else a == b
        assert same, name


# Law 2 for summaries: streaming is stacking


def stacked_probabilities(probs: Tensor, *, corrected: bool = False) -> ProbabilityStatistics:
    wide = probs.to(torch.promote_types(probs.dtype, torch.float32))
    return ProbabilityStatistics(
        wide.mean(0),
        (wide - wide.mean(0)).square().mean(0).sqrt(),
        predictive_entropy(probs),
        expected_entropy(probs),
        mutual_information(probs, corrected=corrected),
        variation_ratio(probs),
        len(probs),
    )


def stacked_values(values: Tensor, variance: Tensor | None) -> ValueStatistics:
    dtype = torch.promote_types(values.dtype, torch.float32)
    values = values.double()
    epistemic = (values - values.mean(0)).square().mean(0).to(dtype)  # what underflows is 0, its root as well
    aleatoric = torch.zeros_like(epistemic) if variance is None else variance.double().mean(0).to(dtype)
    total = epistemic + aleatoric
    return ValueStatistics(values.mean(0).to(dtype), epistemic, aleatoric, total, total.sqrt(), len(values))


@st.composite
def probabilities(draw: st.DrawFn) -> Tensor:
    inner = draw(st.sampled_from([(), (0,), (1,), (4,), (2, 3)]))
    logits = features(draw(seeds), draw(st.integers(1, 9)), *inner, draw(st.integers(1, 5))) * draw(scales)
    return logits.to(draw(st.sampled_from(DTYPES))).softmax(-1)


@st.composite
def values_and_variances(draw: st.DrawFn) -> tuple[Tensor, Tensor | None]:
    inner = draw(st.sampled_from([(), (0,), (1,), (4,), (2, 3)]))
    seed, dtype = draw(seeds), draw(st.sampled_from(DTYPES))
    shape = draw(st.integers(1, 9)), *inner
    scale = draw(st.sampled_from([0.0, 1e-30, 1.0, 1e15]))
    values = scale * (draw(st.sampled_from([0.0, 1.0, -1e6])) + features(seed, *shape))
    variance = features(seed + 1, *shape).square() if draw(st.booleans()) else None
    return values.to(dtype), None if variance is None else variance.to(dtype)


def parts_of(draw: st.DrawFn, size: int) -> list[slice]:
    cuts = sorted(draw(st.sets(st.integers(1, size - 1)))) if size > 1 else []
    return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, size], strict=True)]


def merged(draw: st.DrawFn, leaves: list[Any]) -> Any:
    """Merge in the order of a drawn tree."""
    while len(leaves) > 1:
        target = leaves.pop(draw(st.integers(0, len(leaves) - 1)))
        other = leaves.pop(draw(st.integers(0, len(leaves) - 1)))
        before = copy.deepcopy(other)
        target.merge(other)
        if any(vars(before).values()):
            assert_equal(other.compute(), before.compute())
        leaves.append(target)
    return leaves[0]


@settings(max_examples=60, deadline=None)
@given(probs=probabilities(), data=st.data())
def test_streamed_probabilities_are_stacked_ones(probs: Tensor, data: st.DataObject) -> None:
    expected = stacked_probabilities(probs)
    order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(data.draw(seeds)))
    leaves = []
    for part in parts_of(data.draw, len(probs)):
        leaves.append(ProbabilitySummary())
        for chunk in probs[order][part].split(data.draw(st.integers(1, 9))):
            leaves[-1].update(chunk)
    found = merged(data.draw, leaves).compute()
    for name, a, b in zip(found._fields, found, expected, strict=True):
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert found.samples == len(probs)


@settings(max_examples=60, deadline=None)
@given(case=values_and_variances(), data=st.data())
def test_streamed_values_are_stacked_ones(case: tuple[Tensor, Tensor | None], data: st.DataObject) -> None:
    values, variance = case
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(data.draw(seeds)))
    leaves = []
    for part in parts_of(data.draw, len(values)):
        leaves.append(ValueSummary())
        for rows in order[part].split(data.draw(st.integers(1, 9))):
            leaves[-1].update(values[rows], None if variance is None else variance[rows])
    found, expected = merged(data.draw, leaves).compute(), stacked_values(values, variance)
    largest = float(values.abs().max()) if values.numel() else 0.0
    for name, a, b in zip(found._fields, found, expected, strict=True):
        if isinstance(a, Tensor):  # a mean near 0 is a difference of samples: its error is theirs
            atol = 1e-6 * largest if name == "mean" else 1e-37
            torch.testing.assert_close(a, b, rtol=3e-6, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    assert found.samples == len(values)


@settings(max_examples=25, deadline=None)
@given(probs=probabilities(), size=st.integers(1, 9), corrected=st.booleans())
def test_chunks_change_no_bit(probs: Tensor, size: int, corrected: bool) -> None:
    corrected = corrected and len(probs) > 1
    summaries: list[tuple[Summary, Tensor]] = [(ProbabilitySummary(), probs), (ValueSummary(), probs)]
    for summary, samples in summaries:
        chunked = type(summary)()
        summary.update(samples)
        for chunk in samples.split(size):
            chunked.update(chunk)
        assert_equal(chunked.compute(), summary.compute())
    found = summaries[0][0].compute(corrected=corrected)  # type: ignore[call-arg]
    assert (found.mutual_information >= 0).all()
    assert (found.mutual_information <= found.predictive_entropy).all()
    expected = mutual_information(probs, corrected=corrected)
    torch.testing.assert_close(found.mutual_information, expected, atol=2e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, where=st.integers(0, 3))
def test_nan_in_one_sample_is_nan_there_alone(seed: int, where: int) -> None:
    probs = features(seed, 5, 4, 3).softmax(-1)
    spoiled = probs.clone()
    spoiled[seed % 5, where, seed % 3] = NAN
    for make, stacked in [
        (ProbabilitySummary, stacked_probabilities),
        (ValueSummary, lambda x: stacked_values(x, None)),
    ]:
        clean, summary = make(), make()
        clean.update(probs)
        summary.update(spoiled)
        found, expected = summary.compute(), clean.compute()
        for a, b, reference in zip(found, expected, stacked(spoiled), strict=True):
            if isinstance(a, Tensor) and a is not getattr(found, "aleatoric", None):
                assert torch.equal(a.isnan(), reference.isnan())
                assert torch.equal(a.nan_to_num(0), b.masked_fill(a.isnan(), 0))
                assert a.isnan().any()
    alone = ValueSummary()
    alone.update(torch.tensor([[1.0, NAN, float("inf")]]))
    assert alone.compute().epistemic.isnan().tolist() == [False, True, True]


@settings(max_examples=25, deadline=None)
@given(seed=seeds, more=st.integers(1, 4))
def test_what_was_computed_stays_when_more_is_taken_in(seed: int, more: int) -> None:
    probs = features(seed, 3 + more, 4, 3).softmax(-1)
    for summary in (ProbabilitySummary(), ValueSummary()):
        summary.update(probs[:3])
        early = summary.compute()
        kept = copy.deepcopy(early)
        assert_equal(summary.compute(), early)
        summary.update(probs[3:])
        assert_equal(early, kept)
        early.mean.zero_()
        again = type(summary)()
        again.update(probs)
        assert_equal(summary.compute(), again.compute())
        copies = [copy.deepcopy(summary), pickle.loads(pickle.dumps(summary))]
        for other in copies:
            other.update(probs)
            assert other.compute().samples == 2 * summary.compute().samples
        assert_equal(summary.compute(), again.compute())


@settings(max_examples=25, deadline=None)
@given(seed=seeds, samples=st.integers(2, 40), offset=st.sampled_from([1e6, -1e6, 1e4]))
def test_no_digits_are_lost_where_the_mean_is_large(seed: int, samples: int, offset: float) -> None:
    values = offset + features(seed, samples, 5)  # rounded to 1/16 at 1e6: these numbers are the samples
    summary, half = ValueSummary(), ValueSummary()
    summary.update(values[: samples // 2])
    half.update(values[samples // 2 :])
    summary.merge(half)
    found = summary.compute()
    exact = values.double()
    torch.testing.assert_close(found.epistemic.double(), exact.var(0, correction=0), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.mean, exact.mean(0).float(), rtol=2e-7, atol=0)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_one_sample_is_the_member_itself(seed: int) -> None:
    probs, variance = features(seed, 1, 4, 3).softmax(-1), features(seed, 1, 4, 3).square()
    doubt, value = ProbabilitySummary(), ValueSummary()
    doubt.update(probs)
    value.update(probs, variance)
    a, b = doubt.compute(), value.compute()
    assert torch.equal(a.mean, probs[0])
    assert torch.equal(b.mean, probs[0])
    assert torch.equal(b.total, variance[0])
    for zero in (a.std, a.mutual_information, a.variation_ratio, b.epistemic):
        assert not zero.any()


@settings(max_examples=40, deadline=None)
@given(probs=probabilities())
def test_bounds_of_corrected_information(probs: Tensor) -> None:
    if len(probs) < 2:
        return
    raw, corrected = mutual_information(probs), mutual_information(probs, corrected=True)
    assert (corrected >= raw).all()
    assert (corrected <= predictive_entropy(probs)).all()


# Scores


@settings(max_examples=60, deadline=None)
@given(seed=seeds, samples=st.integers(1, 6), scale=scales, dtype=st.sampled_from(DTYPES))
def test_scores_of_samples(seed: int, samples: int, scale: float, dtype: torch.dtype) -> None:
    logits = (scale * features(seed, samples, 2, 3, 4)).to(dtype)
    labels = torch.randint(4, (2, 3), generator=torch.Generator().manual_seed(seed))
    found, brier = negative_log_likelihood(logits, labels), brier_score(logits.softmax(-1), labels)
    assert found.shape == brier.shape == labels.shape
    assert found.dtype == brier.dtype == torch.promote_types(dtype, torch.float32)
    assert found.isfinite().all()
    assert (found >= -1e-6).all()
    assert (brier >= 0).all()
    assert (brier <= 2 + 1e-2).all()  # bfloat16 probabilities do not sum to 1
    single = torch.stack([negative_log_likelihood(each[None], labels) for each in logits])
    assert (found <= single.mean(0) * (1 + 1e-5) + 1e-5).all()  # Jensen
    one = torch.nn.functional.cross_entropy(logits[0].float().movedim(-1, 1), labels, reduction="none")
    torch.testing.assert_close(single[0].float(), one, rtol=1e-5, atol=1e-5)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(negative_log_likelihood(logits[order], labels), found)


def test_scores_of_sure_predictions() -> None:
    probs, labels = torch.eye(3)[None], torch.arange(3)
    assert brier_score(probs, labels).tolist() == [0, 0, 0]
    assert brier_score(probs, labels.roll(1)).tolist() == [2, 2, 2]
    logits = (1e4 * torch.eye(3)[None]).requires_grad_()
    loss = negative_log_likelihood(logits, labels.roll(1))
    assert loss.tolist() == [1e4, 1e4, 1e4]
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    spoiled = torch.tensor([[[NAN, 0.0], [0.0, 0.0]]])
    for score in (negative_log_likelihood, brier_score):
        assert score(spoiled, torch.tensor([1, 1])).isnan().tolist() == [True, False]


# Risk and coverage


@st.composite
def doubts_and_losses(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    size, seed, levels = draw(st.integers(1, 30)), draw(seeds), draw(st.sampled_from([1, 2, 5, 1000]))
    doubt = torch.randint(levels, (size,), generator=torch.Generator().manual_seed(seed)).to(torch.float32)
    return doubt, features(seed, size).abs()


@settings(max_examples=60, deadline=None)
@given(case=doubts_and_losses(), seed=seeds)
def test_risk_coverage(case: tuple[Tensor, Tensor], seed: int) -> None:
    doubt, losses = case
    coverage, risk = risk_coverage(doubt, losses)
    torch.testing.assert_close(coverage, torch.arange(1, len(losses) + 1) / len(losses))
    torch.testing.assert_close(risk[-1], losses.mean())
    order = torch.randperm(len(losses), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(risk_coverage(doubt[order], losses[order])[1], risk)
    assert torch.equal(risk_coverage(doubt.exp().clamp(max=1e30) if doubt.max() < 60 else 3 * doubt, losses)[1], risk)
    torch.testing.assert_close(risk_coverage(torch.zeros_like(doubt), losses)[1], losses.mean().expand(len(losses)))
    area = area_under_risk_coverage(doubt, losses)
    slack = 1e-6 + 1e-6 * area
    assert area_under_risk_coverage(losses, losses) - slack <= area <= area_under_risk_coverage(-losses, losses) + slack


@settings(max_examples=25, deadline=None)
@given(seed=seeds, size=st.integers(2, 9))
def test_nan_in_risk_coverage_is_not_hidden(seed: int, size: int) -> None:
    doubt, losses = features(seed, size), features(seed + 1, size).abs()
    where = seed % size
    spoiled = doubt.clone()
    spoiled[where] = NAN
    risk = risk_coverage(spoiled, losses)[1]
    assert risk.isnan().tolist() == [False] * (size - 1) + [True]
    spoiled = losses.clone()
    spoiled[where] = NAN
    rank = int((doubt < doubt[where]).sum())
    risk = risk_coverage(doubt, spoiled)[1]
    assert risk.isnan().tolist() == [False] * rank + [True] * (size - rank)
    assert area_under_risk_coverage(doubt, spoiled).isnan()


def test_sums_of_many_losses_keep_their_digits() -> None:
    risk = risk_coverage(torch.zeros(2**20), torch.full((2**20,), 0.1))[1]
    torch.testing.assert_close(risk, torch.full_like(risk, 0.1), rtol=1e-6, atol=0)


# Spread of samples


@settings(max_examples=40, deadline=None)
@given(seed=seeds, samples=st.integers(2, 7), scale=st.sampled_from([0.0, 1e-10, 1.0, 1e10]), where=st.integers(0, 5))
def test_spread_is_an_uncertainty(seed: int, samples: int, scale: float, where: int) -> None:
    x = scale * features(seed, samples, 2, 3, 5)
    spread = sample_spread(x)
    assert spread.shape == (2, 3)
    assert (spread >= 0).all()
    torch.testing.assert_close(spread, sample_spread(x.flip(0)), rtol=1e-5, atol=0)
    torch.testing.assert_close(sample_spread(4 * x), 4 * spread, rtol=1e-6, atol=0)
    torch.testing.assert_close(sample_spread(x + scale), spread, rtol=1e-4, atol=0)
    same = x[:1].expand(samples, -1, -1, -1)
    assert (sample_spread(same) <= 4 * torch.finfo(x.dtype).eps * scale * x.abs().max().clamp(min=1)).all()
    spoiled = x.clone()
    spoiled[seed % samples, where // 3, where % 3, seed % 5] = NAN
    expected = spread.clone()
    expected[where // 3, where % 3] = NAN
    torch.testing.assert_close(sample_spread(spoiled), expected, equal_nan=True)


def test_spread_has_a_gradient_of_zero_where_samples_agree() -> None:
    x = torch.ones(3, 2, 4, requires_grad=True)
    sample_spread(x).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()
    assert torch.autograd.gradcheck(sample_spread, features(0, 3, 2, 4).double().requires_grad_())


# Probabilistic query


@settings(max_examples=40, deadline=None)
@given(seed=seeds, scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]), dtype=st.sampled_from(DTYPES))
def test_a_query_starts_as_the_token_with_one_confidence(seed: int, scale: float, dtype: torch.dtype) -> None:
    tokens = (scale * features(seed, 2, 3, 4)).to(dtype)
    query = ProbabilisticQuery(4, dtype=dtype)(tokens)
    assert torch.equal(query.mean, tokens)
    assert query.mean.dtype == query.log_variance.dtype == dtype
    assert query.confidence.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(query.std, torch.full_like(query.std, math.exp(-2)))
    torch.testing.assert_close(query.confidence, torch.full_like(query.confidence, 0.8734230))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]))
def test_confidence_of_a_query_falls_with_its_variance(seed: int, scale: float) -> None:
    mean, log_variance = features(seed, 2, 3, 4), scale * features(seed + 1, 2, 3, 4)
    confidence = GaussianTokens(mean, log_variance).confidence
    assert confidence.shape == (2, 3)
    assert (confidence > 0).all()
    assert (confidence <= 1).all()
    assert (GaussianTokens(mean, log_variance + 1).confidence <= confidence).all()
    divergence = standard_normal_divergence(mean, log_variance=log_variance)
    assert divergence.shape == (2, 3)
    assert (divergence >= 0).all()
    zero = torch.zeros(2, 3, 4)
    assert not standard_normal_divergence(zero, log_variance=zero).any()


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_a_draw_is_repeatable_and_leaves_the_global_stream(seed: int) -> None:
    query = GaussianTokens(features(seed, 2, 3, 4).bfloat16(), features(seed + 1, 2, 3, 4))
    stream = torch.get_rng_state()
    draws = [query.draw(generator=torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].dtype == torch.bfloat16
    assert torch.equal(torch.get_rng_state(), stream)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        assert torch.equal(query.draw(), draws[0])


def test_draws_have_the_mean_and_the_std_and_pass_gradients_to_both() -> None:
    mean, log_variance = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.0, -4.0]])
    query = GaussianTokens(mean.expand(40_000, 2), log_variance.expand(40_000, 2))
    drawn = query.draw(generator=torch.Generator().manual_seed(0))
    std = query.std[0]
    assert ((drawn.mean(0) - mean[0]).abs() < 4 * std / 200).all()
    assert ((drawn.std(0) / std - 1).abs() < 4 / math.sqrt(2 * 40_000)).all()
    leaves = [each.clone().requires_grad_() for each in (mean, log_variance)]
    GaussianTokens(*leaves).draw(generator=torch.Generator().manual_seed(0)).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.any() for leaf in leaves)


# Law 8: all rooms


def every_function(samples: Tensor, labels: Tensor, head: ProbabilisticQuery) -> tuple[Tensor, ...]:
    probs = samples.softmax(-1)
    doubt = mutual_information(probs, corrected=True)
    loss = negative_log_likelihood(samples, labels)
    query = head(samples)
    return (
        doubt,
        loss,
        brier_score(probs, labels),
        *risk_coverage(doubt, loss),
        area_under_risk_coverage(doubt, loss),
        exponential_confidence(sample_spread(samples)),
        *query,
        query.std,
        query.confidence,
        standard_normal_divergence(query.mean, log_variance=query.log_variance),
    )


def head_of(dtype: torch.dtype = torch.float32, seed: int = 0) -> ProbabilisticQuery:
    head = ProbabilisticQuery(5, dtype=dtype)
    with torch.no_grad():
        for i, parameter in enumerate(head.parameters()):
            parameter.add_(0.1 * features(seed + i, *parameter.shape).to(dtype))
    return head


@pytest.mark.compiles
def test_full_graph_compile_equals_eager() -> None:
    inputs = features(0, 3, 4, 5), torch.tensor([0, 4, 2, 2]), head_of()
    torch._dynamo.reset()
    compiled = torch.compile(every_function, fullgraph=True)(*inputs)
    for found, expected in zip(compiled, every_function(*inputs), strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_equals_float32_on_the_same_numbers(dtype: torch.dtype) -> None:
    samples, labels = (5 * features(0, 3, 4, 5)).to(dtype), torch.tensor([0, 4, 2, 2])

    def call(x: Tensor) -> list[Tensor]:
        doubt = ProbabilitySummary()
        doubt.update(x.abs().div(64))
        value = ValueSummary()
        value.update(x, x.abs())
        functions = negative_log_likelihood(x, labels), brier_score(x.abs().div(64), labels), sample_spread(x)
        query = GaussianTokens(x, -x.abs())
        more = query.std, query.confidence, standard_normal_divergence(query.mean, log_variance=query.log_variance)
        risk = risk_coverage(x[0, :, 0].clone(), x[1, :, 0].abs())
        return [y for y in (*functions, *more, *risk, *doubt.compute(), *value.compute()) if isinstance(y, Tensor)]

    with torch.autocast("cpu", dtype=dtype):
        half = call(samples)
    for found, expected in zip(half, call(samples.float()), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_copies_and_reloads_are_the_same_head() -> None:
    head, file, tokens = head_of(), io.BytesIO(), features(9, 2, 3, 5)
    torch.save(head.state_dict(), file)
    file.seek(0)
    reloaded = head_of(seed=7)
    assert not torch.equal(reloaded(tokens).mean, head(tokens).mean)
    reloaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head)), reloaded):
        assert_equal(other(tokens), head(tokens))
    assert_equal(pickle.loads(pickle.dumps(head(tokens).__class__(*map(Tensor.detach, head(tokens))))), head(tokens))


def test_checks_read_no_values() -> None:
    """A fake tensor has none: reading one raises. (Labels on a CPU are looked at.)"""

    def call(probs: Tensor) -> list[torch.Size]:
        doubt, value = ProbabilitySummary(), ValueSummary()
        for each in (doubt, value):
            each.update(probs)
            each.update(probs)
        query = ProbabilisticQuery(5)(probs)
        risk = risk_coverage(probs[0, :, 0], probs[1, :, 0])
        found = *doubt.compute(corrected=True), *value.compute(), *risk, sample_spread(probs), query.confidence
        divergence = standard_normal_divergence(query.mean, log_variance=query.log_variance)
        return [y.shape for y in (*found, query.draw(), divergence) if isinstance(y, Tensor)]

    expected = call(torch.full((3, 4, 5), 0.2))
    with FakeTensorMode():
        assert call(torch.full((3, 4, 5), 0.2)) == expected


@pytest.mark.parametrize("measure", [sample_spread, lambda x: mutual_information(x.softmax(-1), corrected=True)])
def test_gradients_reach_the_samples(measure: Callable[[Tensor], Tensor]) -> None:
    samples = features(0, 3, 4, 5).requires_grad_()
    measure(samples).sum().backward()
    assert samples.grad is not None
    assert samples.grad.isfinite().all()
    assert samples.grad.any()
