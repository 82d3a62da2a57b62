"""Behaviour of summaries, scores and the probabilistic query with real modules."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, local
from typing import Any

import pytest
import torch
from instruments.meters import peak_bytes
from torch import Tensor, nn
from torch import distributed as dist

from balancekit.adapters import GatedCrossAttention
from balancekit.uncertainty import (
    CrossModalResidual,
    DeepEnsemble,
    FeatureDensity,
    GaussianTokens,
    MCDropout,
    ProbabilisticQuery,
    ProbabilitySummary,
    ValueSummary,
    area_under_risk_coverage,
    expected_entropy,
    exponential_confidence,
    mutual_information,
    predictive_entropy,
    risk_coverage,
    sample_spread,
    standard_normal_divergence,
    variation_ratio,
)


@pytest.fixture(autouse=True)
def _own_stream() -> object:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


# Summaries


def test_modal_votes_not_the_vote_of_the_mean() -> None:
    summary = ProbabilitySummary()
    for votes in ([0.6, 0.4], [0.6, 0.4], [0.0, 1.0]):  # the mean votes for class 1
        summary.update(torch.tensor([[votes]]))
    assert summary.compute().mean.argmax(-1).item() == 1
    assert summary.compute().variation_ratio.item() == pytest.approx(1 / 3)


def test_corrected_information_of_an_ensemble_member_by_member() -> None:
    ensemble, x = DeepEnsemble.build(lambda: nn.Linear(4, 3), 5, seed=0), torch.randn(6, 4)
    summary = ProbabilitySummary()
    for member in ensemble.members:
        summary.update(member(x).softmax(-1)[None])
    found, stacked = summary.compute(corrected=True), mutual_information(ensemble(x).softmax(-1), corrected=True)
    torch.testing.assert_close(found.mutual_information, stacked, rtol=0, atol=1e-6)
    torch.testing.assert_close(stacked, 1.25 * mutual_information(ensemble(x).softmax(-1)))
    assert not found.mean.requires_grad


def test_dropout_in_portions_of_one_generator() -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)), torch.randn(6, 4)
    generator, summary = torch.Generator().manual_seed(0), ValueSummary()
    parts = [MCDropout(model, 2)(x, generator=generator) for _ in range(5)]
    for part in parts:
        summary.update(part, variance=part.square())
    stacked = torch.cat(parts).detach()
    found = summary.compute()
    torch.testing.assert_close(found.mean, stacked.mean(0))
    torch.testing.assert_close(found.total, stacked.var(0, correction=0) + stacked.square().mean(0))
    assert found.samples == 10
    assert not found.total.requires_grad


def test_totals_from_inference_mode_can_be_added_to() -> None:
    for summary in (ProbabilitySummary(), ValueSummary()):
        with torch.inference_mode():
            summary.update(torch.rand(2, 3, 4).softmax(-1))
        summary.update(torch.rand(2, 3, 4).softmax(-1))
        other = type(summary)()
        with torch.inference_mode():
            other.merge(summary)
            other.merge(summary)
        other.merge(summary)
        assert other.compute().samples == 12
        torch.testing.assert_close(other.compute().mean, summary.compute().mean)


def test_a_summary_merged_with_itself_counts_twice() -> None:
    for summary in (ProbabilitySummary(), ValueSummary()):
        summary.update(torch.rand(3, 2, 4).softmax(-1))
        before = summary.compute()
        summary.merge(summary)
        after = summary.compute()
        assert after.samples == 6
        for a, b in zip(after[:-1], before[:-1], strict=True):
            torch.testing.assert_close(a, b)


def test_an_empty_summary_takes_over_and_shares_nothing() -> None:
    for summary in (ProbabilitySummary(), ValueSummary()):
        summary.update(torch.rand(3, 2, 4).softmax(-1))
        empty, kept = type(summary)(), summary.compute()
        summary.merge(empty)
        empty.merge(summary)
        empty.update(torch.rand(3, 2, 4).softmax(-1))
        assert torch.equal(summary.compute().mean, kept.mean)
        assert (empty.compute().samples, summary.compute().samples) == (6, 3)


def test_a_refused_update_changes_nothing() -> None:
    summary = ValueSummary()
    summary.update(torch.rand(3, 4), torch.rand(3, 4))
    before = summary.compute()
    for values, variance in [(torch.rand(3, 5), torch.rand(3, 5)), (torch.rand(3, 4), None)]:
        with pytest.raises(ValueError, match="expected"):
            summary.update(values, variance)
    for a, b in zip(summary.compute()[:-1], before[:-1], strict=True):
        assert torch.equal(a, b)
    assert summary.compute().samples == 3


def test_memory_does_not_grow_with_the_samples() -> None:
    probs = torch.rand(1, 8, 1000, 10).softmax(-1)
    size = probs.nbytes
    summary = ProbabilitySummary()
    first = peak_bytes(lambda: summary.update(probs))
    assert peak_bytes(lambda: [summary.update(probs) for _ in range(6)]) < 2.8 * size  # beside the totals
    assert peak_bytes(lambda: summary.update(probs.expand(20, -1, -1, -1))) < 2.8 * size
    assert first + peak_bytes(summary.compute) < 9 * size
    stacked = probs.expand(20, -1, -1, -1).contiguous()
    assert peak_bytes(lambda: mutual_information(stacked)) > 40 * size


# What an uncertainty is worth


def test_excess_area_is_zero_for_the_best_order_and_positive_for_others() -> None:
    losses = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0])
    best = area_under_risk_coverage(losses, losses)
    assert best.item() == pytest.approx((1 / 4 + 2 / 5) / 5)
    assert area_under_risk_coverage(losses + torch.tensor([0, 0.1, 0.2, 0.3, 0.4]), losses) == best
    assert area_under_risk_coverage(torch.zeros(5), losses).item() == pytest.approx(0.4)


# Spread and query in front of an adapter


def test_a_noisy_token_gets_the_lower_confidence() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.drop = nn.Linear(8, 8), nn.Dropout(0.3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.drop(x))

    tokens = torch.ones(2, 5, 8)
    tokens[0, 3] = 0.0  # dropout does nothing to it
    samples = MCDropout(Block())(tokens)
    confidence = exponential_confidence(sample_spread(samples))
    assert confidence.shape == (2, 5)
    assert confidence[0, 3] == 1
    assert confidence.flatten().sort().values[-2] < 0.9


def test_an_adapter_with_the_mean_as_its_query_is_unchanged_at_the_start() -> None:
    adapter, head = GatedCrossAttention(16, width=8, heads=2, dropout=0.0), ProbabilisticQuery(16)
    nn.init.normal_(adapter.up.weight)
    own, other = torch.randn(2, 2, 5, 16)
    query = head(other)
    assert torch.equal(adapter(own, query.mean), adapter(own, other))
    gated = adapter(own, query.mean, query.confidence)
    assert not torch.equal(gated, adapter(own, other))
    gated.sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    assert head.log_variance.weight.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_only_the_divergence_keeps_the_variance_from_falling(weight: float) -> None:
    """Squared error ½ a (q − t)² with the divergence has its minimum at σ² = weight / (a + weight)."""
    log_variance = torch.full((1, 1), -1.0, requires_grad=True)
    mean, target = torch.zeros(1, 1), torch.zeros(1, 1)
    optimizer = torch.optim.Adam([log_variance], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        drawn = GaussianTokens(mean.expand(512, 1), log_variance.expand(512, 1)).draw(generator=generator)
        loss = (drawn - target).square().mean() / 2
        loss = loss + weight * standard_normal_divergence(mean, log_variance=log_variance).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    variance = math.exp(log_variance.item())
    if weight:
        assert variance == pytest.approx(weight / (1 + weight), rel=0.1)
    else:
        assert variance < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_draw_is_the_mean_and_so_many_deviations(dtype: torch.dtype) -> None:
    mean, log_variance = torch.tensor([[1.0, -2.0, 3.0]], dtype=dtype), torch.tensor([[0.0, 2.0, -4.0]])
    found = GaussianTokens(mean, log_variance).draw(generator=torch.Generator().manual_seed(5))
    noise = torch.randn(1, 3, generator=torch.Generator().manual_seed(5))
    assert found.dtype == dtype
    assert torch.equal(found, (mean + torch.tensor([[1.0, math.e, math.exp(-2)]]) * noise).to(dtype))


def test_one_token_alone_and_one_channel() -> None:
    head = ProbabilisticQuery(1)
    query = head(torch.tensor([7.0]))
    assert query.mean.tolist() == [7.0]
    assert query.log_variance.tolist() == [-4.0]
    divergence = standard_normal_divergence(torch.tensor([2.0, 1.0]), log_variance=torch.tensor([0.0, math.log(3)]))
    assert divergence.item() == pytest.approx((4 + (1 + 3 - 1 - math.log(3))) / 2)
    assert sample_spread(torch.tensor([[1.0], [4.0]])).item() == pytest.approx(3 / math.sqrt(2))


def test_parameters_of_a_query_are_where_and_what_is_asked_for() -> None:
    head = ProbabilisticQuery(3, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in head.parameters()} == {("meta", torch.float64)}


def test_values_without_axes() -> None:
    summary = ValueSummary()
    summary.update(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 0.0, 2.0]))
    found = summary.compute()
    assert found.mean.item() == 3
    assert found.epistemic.item() == pytest.approx(14 / 3)
    assert found.aleatoric.item() == 1
    assert found.std.item() == pytest.approx(math.sqrt(17 / 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_risk_has_the_dtype_of_the_losses_or_float32(dtype: torch.dtype) -> None:
    found = risk_coverage(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 3.0, 1.0], dtype=dtype))
    wide = torch.promote_types(dtype, torch.float32)
    assert [each.dtype for each in found] == [wide, wide]
    torch.testing.assert_close(found[1], torch.tensor([0.0, 1.0, 4 / 3], dtype=wide))


# Ranks, each a thread


def on_ranks(monkeypatch: pytest.MonkeyPatch, *calls: Callable[[], Any]) -> list[Any]:
    """What each call returns, or raises, where each is a rank of one process group."""
    barrier, rank = Barrier(len(calls), timeout=10), local()
    slots = [torch.empty(0)] * len(calls)

    def all_reduce(tensor: Tensor, op: Any = dist.ReduceOp.SUM) -> None:
        slots[rank.index] = tensor.clone()
        barrier.wait()
        stacked = torch.stack(slots)
        barrier.wait()
        tensor.copy_(stacked.sum(0) if op == dist.ReduceOp.SUM else stacked.amax(0))

    def run(index: int) -> Any:
        rank.index = index
        try:
            return calls[index]()
        except ValueError as error:
            return error

    with monkeypatch.context() as patched, ThreadPoolExecutor(len(calls)) as pool:
        patched.setattr(dist, "is_initialized", lambda: True)
        patched.setattr(dist, "get_world_size", lambda: len(calls))
        patched.setattr(dist, "get_backend", lambda: "gloo")
        patched.setattr(dist, "all_reduce", all_reduce)
        return list(pool.map(run, range(len(calls))))


def double(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("given", [True, False])
def test_values_of_all_ranks(monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    ranks = [ValueSummary(), ValueSummary()]
    ranks[0].update(double([1, 50], [3, 50]), double([1, 2], [3, 2]) if given else None)
    ranks[1].update(double([5, 80]), double([5, 8]) if given else None)
    before = [each.compute() for each in ranks]
    for found in on_ranks(monkeypatch, *(lambda each=each: each.compute(sync=True) for each in ranks)):
        torch.testing.assert_close(found.mean, double(3, 60))
        torch.testing.assert_close(found.epistemic, double(8 / 3, 200))
        torch.testing.assert_close(found.aleatoric, double(3, 4) if given else double(0, 0))
        torch.testing.assert_close(found.total, double(17 / 3, 204) if given else double(8 / 3, 200))
        assert found.samples == 3
    for each, kept in zip(ranks, before, strict=True):
        for a, b in zip(each.compute(), kept, strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


@pytest.mark.parametrize("corrected", [True, False])
def test_probabilities_of_all_ranks(monkeypatch: pytest.MonkeyPatch, corrected: bool) -> None:
    probs = double([[0.75, 0.25], [1, 0]], [[0.125, 0.875], [1, 0]], [[0.5, 0.5], [0, 1]], [[0.25, 0.75], [0.5, 0.5]])
    ranks = [ProbabilitySummary(), ProbabilitySummary()]
    ranks[0].update(probs[:1])
    ranks[1].update(probs[1:])
    calls = [lambda each=each: each.compute(corrected=corrected, sync=True) for each in ranks]
    for found in on_ranks(monkeypatch, *calls):
        torch.testing.assert_close(found.mean, probs.mean(0))
        torch.testing.assert_close(found.std, probs.std(0, correction=0))
        torch.testing.assert_close(found.predictive_entropy, predictive_entropy(probs))
        torch.testing.assert_close(found.expected_entropy, expected_entropy(probs))
        torch.testing.assert_close(found.mutual_information, mutual_information(probs, corrected=corrected))
        torch.testing.assert_close(found.variation_ratio, variation_ratio(probs))
        assert found.samples == 4
    assert [each.compute().samples for each in ranks] == [1, 3]


def test_ranks_that_disagree_are_an_error_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    values, probs = ValueSummary(), ProbabilitySummary()
    values.update(double([1, 2]))
    probs.update(double([[0.5, 0.5]]))
    for summary, facts, form in [
        (values, "shape, dtype and whether there are variances", "((2,), torch.float64, False)"),
        (probs, "shape and dtype", "((1, 2), torch.float64)"),
    ]:
        empty = type(summary)()
        errors = on_ranks(monkeypatch, lambda s=summary: s.compute(sync=True), lambda e=empty: e.compute(sync=True))
        expected = f"{facts}: expected the same on all ranks, found here "
        assert list(map(str, errors)) == [expected + form, expected + "None"]


@pytest.mark.parametrize("covariance", ["diag", "full"])
@pytest.mark.parametrize("classes", [None, 3])
def test_a_density_of_all_ranks(monkeypatch: pytest.MonkeyPatch, covariance: Any, classes: int | None) -> None:
    x, labels = 5 + torch.randn(12, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    whole, *ranks = (FeatureDensity(2, covariance=covariance, classes=classes).double() for _ in range(3))

    def fit(density: FeatureDensity, rows: slice) -> Tensor:
        arguments = (x[rows], labels[rows]) if classes else (x[rows],)
        for add in (density.accumulate, density.calibrate):
            add(*arguments)
            density.commit()
        return density.confidence(x)

    expected = fit(whole, slice(None))
    parts = slice(None, 5), slice(5, None)
    calls = [lambda each=each, part=part: fit(each, part) for each, part in zip(ranks, parts, strict=True)]
    for density, found in zip(ranks, on_ranks(monkeypatch, *calls), strict=True):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(density(x), whole(x))
        for a, b in zip(density.buffers(), whole.buffers(), strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)


def test_a_residual_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {"rgb": torch.randn(9, 2, dtype=torch.float64), "ir": torch.randn(9, 1, dtype=torch.float64)}
    whole, *ranks = (CrossModalResidual({"rgb": 2, "ir": 1}).double() for _ in range(3))

    def fit(residual: CrossModalResidual, rows: slice) -> dict[str, Tensor]:
        residual.accumulate({name: each[rows] for name, each in tokens.items()})
        residual.commit()
        return residual(tokens)

    expected = fit(whole, slice(None))
    parts = slice(None, 2), slice(2, None)
    calls = [lambda each=each, part=part: fit(each, part) for each, part in zip(ranks, parts, strict=True)]
    for found in on_ranks(monkeypatch, *calls):
        for name, each in expected.items():
            torch.testing.assert_close(found[name], each)
