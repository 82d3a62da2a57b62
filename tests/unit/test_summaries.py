"""Behaviour of summaries, scores and the probabilistic query with real modules."""

import math

import pytest
import torch
from instruments.meters import peak_bytes
from torch import Tensor, nn

from balancekit.adapters import GatedCrossAttention
from balancekit.uncertainty import (
    DeepEnsemble,
    GaussianTokens,
    MCDropout,
    ProbabilisticQuery,
    ProbabilitySummary,
    ValueSummary,
    area_under_risk_coverage,
    exponential_confidence,
    mutual_information,
    sample_spread,
    standard_normal_divergence,
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
