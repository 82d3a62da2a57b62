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
