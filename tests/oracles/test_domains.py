import pytest
import torch

from balancekit.domains import (
    asymmetric_triplet_loss,
    normalise_features,
    reversal_strength,
    single_side_adversarial_loss,
)
from tests.oracles import domains as oracle


def close(actual: torch.Tensor, expected) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("step", [0, 1, 40, 399, 4000, 9000])
@pytest.mark.parametrize("k", [10.0, 1.0])
def test_reversal_strength(step: int, k: float) -> None:
    assert reversal_strength(step, 4000, k=k) == pytest.approx(oracle.reversal_strength(step, 4000, k), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_single_side_adversarial_loss(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, 3, generator=g, dtype=torch.float64)
    domain = torch.randint(3, (8,), generator=g)
    live = torch.rand(8, generator=g) < 0.5
    expected = oracle.single_side_adversarial(logits.tolist(), domain.tolist(), live.tolist())
    close(single_side_adversarial_loss(logits, domain, live), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0])
def test_asymmetric_triplet_loss(seed: int, squared: bool, margin: float) -> None:
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(9, 4, generator=g, dtype=torch.float64)
    labels = torch.randint(3, (9,), generator=g)
    expected = oracle.asymmetric_triplet(features.tolist(), labels.tolist(), margin, squared)
    close(asymmetric_triplet_loss(features, labels, margin=margin, squared=squared), expected)


@pytest.mark.parametrize("released", [False, True])
def test_normalise_features(released: bool) -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(normalise_features(x, released=released), [oracle.normalised(row, released) for row in x.tolist()])
