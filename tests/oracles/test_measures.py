import numpy as np
import pytest
import torch

from balancekit import uncertainty
from tests.oracles import measures as oracle

NAMES = ["predictive_entropy", "expected_entropy", "mutual_information", "variation_ratio"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_measure(name: str, scale: float) -> None:
    logits = scale * torch.randn(7, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probs = logits.softmax(-1)
    found = getattr(uncertainty, name)(probs)
    expected = [getattr(oracle, name)(probs[:, b].tolist()) for b in range(5)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_measure_of_certain_votes(name: str) -> None:
    """Probabilities of exactly 0 and 1, votes 0, 0, 1."""
    probs = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 0, 1])][:, None]
    found = getattr(uncertainty, name)(probs)
    np.testing.assert_allclose(found.numpy(), [getattr(oracle, name)(probs[:, 0].tolist())], atol=1e-12)
    assert name != "variation_ratio" or abs(found.item() - 1 / 3) < 1e-12
