"""Every source of a token's confidence has one form, "b n" in (0, 1], and fits wherever a confidence is taken."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from balancekit import (
    Branches,
    CrossModalResidual,
    DeepEnsemble,
    FeatureDensity,
    GatedCrossAttention,
    MCDropout,
    Rebalancer,
    ReGrad,
    dropout_confidence,
    exponential_confidence,
    mutual_information,
)
from balancekit.surgery import Surgery
from balancekit.uncertainty import ProbabilisticQuery, sample_spread

B, N, D = 3, 5, 8


def tokens(seed: int, batch: int = B) -> Tensor:
    return torch.randn(batch, N, D, generator=torch.Generator().manual_seed(seed))


def block() -> nn.Module:
    return nn.TransformerEncoderLayer(D, 2, 16, dropout=0.3, batch_first=True).eval()


def meter(x: Tensor) -> Tensor:
    return dropout_confidence(x)


def mc_dropout(x: Tensor) -> Tensor:
    return exponential_confidence(sample_spread(MCDropout(block())(x)))


def ensemble(x: Tensor) -> Tensor:
    members = DeepEnsemble.build(lambda: nn.Sequential(block(), nn.Linear(D, 4)), 3, seed=0)
    return exponential_confidence(mutual_information(members(x).softmax(-1)))


def probabilistic(x: Tensor) -> Tensor:
    return ProbabilisticQuery(D)(x).confidence


def density(x: Tensor) -> Tensor:
    fitted = FeatureDensity(D)
    for step in (fitted.accumulate, fitted.calibrate):
        step(tokens(8, 100))
        fitted.commit()
    return fitted.confidence(x)


def disagreement(x: Tensor) -> Tensor:
    fitted = CrossModalResidual({"own": D, "other": D})
    own, noise = tokens(8, 100), tokens(9, 100)
    for step in (fitted.accumulate, fitted.calibrate):
        step({"own": own, "other": own.flip(-1) + 0.1 * noise})
        fitted.commit()
    return fitted.confidence({"own": x, "other": x.flip(-1)})["own"]


SOURCES = [meter, mc_dropout, ensemble, probabilistic, density, disagreement]


@pytest.fixture(autouse=True)
def _own_stream() -> object:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("gate", ["query", "key", "output"])
def test_any_source_drives_any_gate(source: Callable[[Tensor], Tensor], gate: str) -> None:
    own, other = tokens(0), tokens(1)
    confidence = source(own if gate == "key" else other).detach()
    assert confidence.shape == (B, N)
    assert ((confidence > 0) & (confidence <= 1)).all()
    adapter = GatedCrossAttention(D, gate=gate).eval()
    nn.init.normal_(adapter.up.weight)
    whose = "own_confidence" if gate == "key" else "confidence"
    gated, free = adapter(own, other, **{whose: confidence}), adapter(own, other)
    assert gated.isfinite().all()
    one = source is probabilistic and gate == "key"  # equal for all tokens before training: a common factor cancels
    assert torch.allclose(gated, free, atol=1e-6) == one


@pytest.mark.parametrize("source", SOURCES)
def test_any_source_scales_the_fast_branch(source: Callable[[Tensor], Tensor]) -> None:
    model = nn.ModuleDict({"a": nn.Linear(D, D), "b": nn.Linear(D, D)})
    balancer = Rebalancer(Branches(model, {"a": "a", "b": "b"}), ReGrad())
    confidence = {name: source(tokens(seed)).mean(1) for seed, name in enumerate("ab")}  # "b", one a sample
    seen: list[Surgery] = []
    balancer.register_step_hook(seen.append)
    outputs = [model[name](tokens(2)) for name in "ab"]
    losses = {"a": outputs[0].square().mean(), "b": 2 + outputs[1].square().mean()}
    balancer(sum(outputs).square().mean(), losses, confidence=confidence).backward()
    expected = torch.stack([value.detach().mean() for value in confidence.values()])
    torch.testing.assert_close(seen[0].step.confidence, expected)
