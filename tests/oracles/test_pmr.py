import pytest
import torch

from balancekit.modulation import pmr_weights
from tests.oracles import pmr as oracle


def close(actual, expected) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, torch.tensor(e, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scores", [(1.0, 1.0), (1.0, 1.5), (1.5, 1.0), (1.0, 9.0), (9.0, 1.0), (3.3, 3.4)])
def test_two_modalities_are_equation_11_and_13(scores: tuple[float, float]) -> None:
    close(pmr_weights(torch.tensor(scores, dtype=torch.float64)), oracle.two_modalities(*scores))


@pytest.mark.parametrize("seed", range(5))
def test_any_number_of_modalities(seed: int) -> None:
    scores = torch.rand(seed + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    close(pmr_weights(scores), oracle.many_modalities(scores.tolist()))
