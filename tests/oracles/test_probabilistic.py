import pytest
import torch

from balancekit.uncertainty import GaussianTokens, standard_normal_divergence
from tests.oracles import probabilistic as oracle


@pytest.mark.parametrize("mean", [0.0, -1.5, 20.0])
@pytest.mark.parametrize("std", [0.01, 0.14, 1.0, 3.0])
def test_divergence(mean: float, std: float) -> None:
    expected = oracle.standard_normal_divergence(mean, std)
    tokens = torch.tensor([[mean]], dtype=torch.float64)
    query = GaussianTokens(tokens, torch.full_like(tokens, std).log() * 2)
    found = standard_normal_divergence(query.mean, log_variance=query.log_variance)
    assert found.item() == pytest.approx(expected, abs=1e-9, rel=1e-9)
    assert query.std.item() == pytest.approx(std, rel=1e-14)


def test_divergence_is_the_sum_over_channels() -> None:
    mean = torch.tensor([[[0.5, -1.0, 2.0], [0.0, 3.0, 1.0]]], dtype=torch.float64)
    std = torch.tensor([[[1.0, 0.5, 2.0], [3.0, 0.1, 1.0]]], dtype=torch.float64)
    found = standard_normal_divergence(mean, log_variance=2 * std.log())
    pairs = [zip(*each, strict=True) for each in zip(mean[0].tolist(), std[0].tolist(), strict=True)]
    expected = [sum(oracle.standard_normal_divergence(m, s) for m, s in pair) for pair in pairs]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-9)
