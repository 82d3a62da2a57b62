import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from balancekit.uncertainty import dropout_confidence, dropout_std
from balancekit.uncertainty._feature_dropout import _law_of_spread
from tests.oracles import feature_dropout as oracle


def features(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("samples", [2, 3, 7, 10])
def test_law_of_the_spread(p: float, samples: int) -> None:
    expected = oracle.law_of_std(p, samples)
    law = _law_of_spread(p, samples)
    assert len(law) == len(expected) == samples // 2 + 1
    for (value, probability), (true_value, true_probability) in zip(law, sorted(expected.items()), strict=True):
        assert abs(value - true_value) < 1e-11
        assert abs(probability - true_probability) < 1e-12


@pytest.mark.parametrize(("p", "rate", "samples"), [(0.3, 2.25, 10), (0.1, 1.0, 5), (0.5, 4.0, 2), (0.0, 2.25, 4)])
def test_expected_confidence(p: float, rate: float, samples: int) -> None:
    x = features(2, 3, 5)
    found = dropout_confidence(x, p, rate=rate, samples=samples)
    np.testing.assert_allclose(found.numpy(), oracle.expected_confidence(x.numpy(), p, rate, samples), atol=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.7])
def test_limit(p: float) -> None:
    x = features(4, 6)
    found = dropout_confidence(x, p, rate=1.5, method="limit")
    np.testing.assert_allclose(found.numpy(), oracle.limit_confidence(x.numpy(), p, 1.5), atol=1e-12)


def test_variance_of_one_element_is_the_limit_squared() -> None:
    x = features(5)
    kept = x.numpy() / 0.7
    variance = 0.7 * (kept - x.numpy()) ** 2 + 0.3 * x.numpy() ** 2
    np.testing.assert_allclose(dropout_std(x).numpy() ** 2, variance, rtol=1e-12)


@pytest.mark.parametrize(("p", "samples"), [(0.3, 20), (0.1, 5), (0.5, 8)])
def test_expected_square_of_the_spread_is_the_limit(p: float, samples: int) -> None:
    square = sum(probability * value**2 for value, probability in _law_of_spread(p, samples))
    assert abs(square - p / (1 - p)) < 1e-12


def test_published_constant_of_twenty_passes() -> None:
    mean = sum(probability * value for value, probability in _law_of_spread(0.3, 20))
    assert abs(mean - 0.650233) < 5e-7
    assert abs(mean / math.sqrt(0.3 / 0.7) - 0.99325) < 5e-6


def chi_squared(counts: dict[float, int], law: dict[float, float], n: int) -> float:
    """Pearson's statistic; cells with fewer than 10 expected are pooled."""
    pooled = [(counts.get(value, 0), probability * n) for value, probability in law.items() if probability * n >= 10]
    rest = n - sum(count for count, _ in pooled), n - sum(expected for _, expected in pooled)
    cells = [*pooled, rest] if rest[1] >= 10 else pooled
    return sum((count - expected) ** 2 / expected for count, expected in cells)


def counts_of(values: torch.Tensor, law: dict[float, float]) -> dict[float, int]:
    support = torch.tensor(sorted(law), dtype=torch.float64)
    distance, nearest = (values.double()[:, None] - support).abs().min(1)
    assert distance.max() < 1e-6
    return {float(support[j]): int((nearest == j).sum()) for j in range(len(support))}


@pytest.mark.parametrize(("p", "samples"), [(0.3, 10), (0.1, 5), (0.5, 2)])
def test_one_draw_has_the_law_of_the_passes(p: float, samples: int) -> None:
    n, law = 100_000, oracle.law_of_std(p, samples)
    generator = torch.Generator().manual_seed(0)
    drawn = dropout_std(torch.ones(n), p, samples=samples, generator=generator)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        passes = torch.stack([F.dropout(torch.ones(n, dtype=torch.float64), p) for _ in range(samples)]).std(0)
    limit = 24.0  # the 0.9998 quantile for 5 degrees of freedom, the most that occur here
    assert chi_squared(counts_of(drawn, law), law, n) < limit
    assert chi_squared(counts_of(passes, law), law, n) < limit
    assert chi_squared(counts_of(drawn, law), oracle.law_of_std(p + 0.02, samples), n) > limit


def test_sampled_confidence_averages_to_the_expected() -> None:
    x = features(1, 8).float().expand(20_000, 8)
    sampled = dropout_confidence(x, samples=6, method="sampled", generator=torch.Generator().manual_seed(0))
    expected = dropout_confidence(x[:1], samples=6)
    error = sampled.std() / math.sqrt(len(sampled))
    assert (sampled.mean() - expected).abs() < 4 * error
