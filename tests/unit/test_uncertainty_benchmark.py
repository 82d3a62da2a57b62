"""The uncertainty benchmark: what it compares is equal work, and its study of truth measures what it says."""

import pytest
import torch
from fas.standin import make_split
from torch import Tensor
from uncertainty_parts import faces, feature, models, sources, truth

from balancekit import DeepEnsemble
from tests.oracles import feature_dropout as oracle


def test_the_released_loop_scatters_around_the_exact_expectation() -> None:
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    exact = feature.expected_confidence(x)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        runs = torch.stack([feature.released_confidence(x) for _ in range(40)])
    assert (runs.mean(0) - exact).abs().max() < 5 * runs.std(0).max() / 40**0.5
    small = torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    law = [(value, probability) for value, probability in oracle.law_of_std(0.3, 10).items()]
    assert abs(sum(p * v for v, p in law) - 0.976 * (0.3 / 0.7) ** 0.5) < 1e-3  # the oracle's T = 10, for scale
    assert torch.allclose(feature.expected_std(small), small.abs() * 0.650233, atol=1e-6)


def test_auroc_compares_one_failure_with_untouched_tokens_of_its_modality() -> None:
    failure = torch.zeros(1, 3, 64, dtype=torch.uint8)
    failure[0, 1, :4] = torch.tensor([1, 1, 3, 4])
    scores = {"depth": torch.arange(64.0)[None]}
    assert truth.auroc(scores, failure, "depth", "frame mismatch") == 0.0
    scores["depth"][0, :2] = 1000.0
    assert truth.auroc(scores, failure, "depth", "frame mismatch") == 1.0
    assert truth.auroc(scores, failure, "depth", "any") == 0.5


def test_a_ring_is_the_eight_neighbours() -> None:
    tokens = torch.arange(64.0).reshape(1, 64, 1)
    around = faces.ring(tokens)
    assert around[0, 9].tolist() == [0, 1, 2, 8, 10, 16, 17, 18]
    assert around[0, 0].tolist() == [0, 0, 1, 0, 1, 8, 8, 9]


def tokens(seed: int) -> faces.Tokens:
    """Random tokens of three modalities; depth follows RGB, but for a quarter of its tokens, which are marked."""
    generator = torch.Generator().manual_seed(seed)
    failure = torch.zeros(40, 3, 64, dtype=torch.uint8)
    failure[:, 1, ::4] = 1

    def layer(extra: int = 0) -> dict[str, Tensor]:
        rgb, infrared, noise = torch.randn(3, 40, 64 + extra, 4, generator=generator).unbind()
        depth = rgb + 0.1 * noise
        depth[:, extra::4] = torch.randn(depth[:, extra::4].shape, generator=generator)
        return {"rgb": rgb, "depth": depth, "infrared": infrared}

    return faces.Tokens(layer(), layer(1), layer(), layer(), failure)


def test_disagreement_sees_what_density_cannot() -> None:
    train, dev, test = map(tokens, range(3))
    alone = sources.density(train, test, lambda t: t.first)
    apart, sure = sources.disagreement(train, dev, test, {})
    assert abs(truth.auroc(alone, test.failure, "depth", "any") - 0.5) < 0.06
    assert truth.auroc(apart, test.failure, "depth", "any") > 0.98
    assert truth.auroc({"depth": -sure["depth"]}, test.failure, "depth", "any") > 0.95


def test_the_network_has_the_dropout_that_is_sampled() -> None:
    samples = make_split("W", "train", 24, seed=0)
    model = faces.network(samples, seed=0, epochs=1)
    seen = faces.tokens(model, samples)
    assert seen.embedded["rgb"].shape == (24, 65, 64) and seen.first["depth"].shape == (24, 64, 32)
    spread = sources.mc_dropout(model, seen)
    assert all(value.shape == (24, 64) and value.min() > 0 for value in spread.values())


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of attention under vmap, torch's
def test_an_ensemble_of_transformers_compiles_under_vmap_and_takes_a_smaller_last_batch() -> None:
    torch._dynamo.reset()
    case = models.CASES[3]
    members = DeepEnsemble([case.build().eval() for _ in range(3)], backend="vmap")
    members.compile(backend="aot_eager")
    with torch.no_grad():
        for batch in (8, 5):
            x = case.input()[:batch]
            torch.testing.assert_close(members(x), DeepEnsemble(members.members)(x), rtol=1e-4, atol=1e-5)
