import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from balancekit.uncertainty import dropout_confidence, dropout_std
from balancekit.uncertainty._spread_law import _gap, gauss, spread_law
from tests.oracles import feature_dropout as oracle


def features(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("samples", [2, 3, 7, 10])
def test_law_of_the_spread(p: float, samples: int) -> None:
    expected = oracle.law_of_std(p, samples)
    law = spread_law(p, samples)
    assert len(law) == len(expected) == samples // 2 + 1
    for (value, probability), (true_value, true_probability) in zip(law, sorted(expected.items()), strict=True):
        assert abs(value - true_value) < 1e-11
        assert abs(probability - true_probability) < 1e-12


@pytest.mark.parametrize(("p", "samples"), [(0.1, 5), (0.3, 10), (0.7, 7)])
def test_counts_stand_for_all_masks(p: float, samples: int) -> None:
    counted, enumerated = oracle.law_of_std_by_counts(p, samples), oracle.law_of_std(p, samples)
    assert counted.keys() == enumerated.keys()
    assert all(abs(counted[value] - probability) < 1e-12 for value, probability in enumerated.items())


@pytest.mark.parametrize(("p", "samples"), [(0.3, 20), (0.1, 5), (0.5, 2), (0.9, 30)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_count_tells_the_std_of_the_loop(p: float, samples: int, dtype: torch.dtype, tolerance: float) -> None:
    x = features(40, 50).to(dtype)
    masks = torch.rand(samples, *x.shape, generator=torch.Generator().manual_seed(1)) >= p
    kept = masks.sum(0)
    values = torch.tensor([value for value, _ in spread_law(p, samples)], dtype=dtype)
    found = x.abs() * values[torch.minimum(kept, samples - kept)]
    loop = torch.stack([x * mask / (1 - p) for mask in masks]).std(0)
    assert ((found - loop).abs() <= tolerance * x.abs() / (1 - p)).all()
    expected = oracle.std_over_passes(x.double().numpy(), masks.double().numpy(), p)
    assert ((found - torch.from_numpy(expected)).abs() <= tolerance * x.abs() / (1 - p)).all()


@pytest.mark.parametrize(("p", "rate", "samples"), [(0.3, 2.25, 10), (0.1, 1.0, 5), (0.5, 4.0, 2), (0.0, 2.25, 4)])
def test_expected_confidence(p: float, rate: float, samples: int) -> None:
    x = features(2, 3, 5)
    found = dropout_confidence(x, p, rate=rate, samples=samples)
    tolerance = 1e-12 if samples == 2 or p == 0 else 1e-3  # one value of the spread beside 0: nothing to shorten
    np.testing.assert_allclose(found.numpy(), oracle.expected_confidence(x.numpy(), p, rate, samples), atol=tolerance)


@pytest.mark.parametrize("p", [1e-6, 0.01, 0.1, 0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("samples", [2, 3, 5, 10, 20, 50, 200])
def test_expected_confidence_is_right_to_a_thousandth_for_every_magnitude(p: float, samples: int) -> None:
    size = torch.cat([torch.zeros(1), torch.logspace(-6, 6, 3000)]).double()[:, None]
    found = dropout_confidence(size, p, rate=0.8, samples=samples).numpy()
    error = np.abs(found - oracle.expected_exponential(size[:, 0].numpy(), p, 0.8, samples))
    assert error.max() < 1e-3


def test_at_the_defaults_two_exponentials_are_right_to_fourteen_hundred_thousandths() -> None:
    assert len(spread_law(0.3, 20, 1e-3)) == 1 + 2
    size = torch.linspace(0, 40, 5000, dtype=torch.float64)[:, None]
    expected = oracle.expected_exponential(size[:, 0].numpy(), 0.3, 2.25, 20)
    assert 1.3e-4 < np.abs(dropout_confidence(size).numpy() - expected).max() < 1.5e-4


@pytest.mark.parametrize(("p", "samples"), [(0.3, 20), (0.1, 20), (0.3, 10), (0.005, 500)])
def test_no_shorter_law_would_do(p: float, samples: int) -> None:
    never, *rest = spread_law(p, samples)
    nodes = len(spread_law(p, samples, 1e-3)) - 1
    size = np.logspace(-3, 4, 4000)
    fewer = [never, *gauss(rest, nodes - 1)]
    found = np.sum([weight * np.exp(-value * size) for value, weight in fewer], axis=0)
    assert np.abs(found - oracle.expected_exponential(size, p, 1.0, samples)).max() > 1e-3


@pytest.mark.parametrize("nodes", [1, 2, 3])
@pytest.mark.parametrize(("p", "samples"), [(0.3, 20), (0.1, 20), (0.3, 10), (0.005, 500)])
def test_the_largest_error_is_found_between_the_steps_of_its_grid(p: float, samples: int, nodes: int) -> None:
    _, *rest = spread_law(p, samples)
    few = gauss(rest, nodes)
    size = np.logspace(-3, 4, 20000)
    error = sum(weight * np.exp(-value * size) for value, weight in rest)
    error = error - sum(weight * np.exp(-value * size) for value, weight in few)
    assert 0.9998 * np.abs(error).max() < _gap(rest, few) <= 1.0001 * np.abs(error).max()


def test_published_nodes_of_twenty_passes() -> None:
    nodes = [(0.1770897, 0.00551373), (0.5529509, 0.31149505), (0.69842085, 0.68299123)]
    np.testing.assert_allclose(gauss(spread_law(0.3, 20), 3), nodes, atol=6e-8)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
@pytest.mark.parametrize(("p", "samples"), [(0.3, 20), (0.05, 40), (0.9, 21)])
def test_quadrature_is_exact_for_polynomials_of_degree_2n_minus_1(p: float, samples: int, n: int) -> None:
    law = spread_law(p, samples)
    nodes = gauss(law, n)
    assert len(nodes) == n
    assert all(law[0][0] < value < law[-1][0] and weight > 0 for value, weight in nodes)
    for degree in range(2 * n):
        moment = sum(probability * value**degree for value, probability in law)
        assert abs(sum(weight * value**degree for value, weight in nodes) - moment) < 1e-12 * moment


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
    square = sum(probability * value**2 for value, probability in spread_law(p, samples))
    assert abs(square - p / (1 - p)) < 1e-12


def test_published_constant_of_twenty_passes() -> None:
    mean = sum(probability * value for value, probability in spread_law(0.3, 20))
    assert abs(mean - 0.650233) < 5e-7
    assert abs(mean / math.sqrt(0.3 / 0.7) - 0.99325) < 5e-6


def p_value(counts: dict[float, int], law: dict[float, float], n: int) -> float:
    """Of Pearson's statistic; cells with fewer than 10 expected are pooled."""
    pooled = [(counts.get(value, 0), probability * n) for value, probability in law.items() if probability * n >= 10]
    rest = n - sum(count for count, _ in pooled), n - sum(expected for _, expected in pooled)
    cells = [*pooled, rest] if rest[1] >= 10 else pooled
    statistic = sum((count - expected) ** 2 / expected for count, expected in cells)
    half = torch.tensor([len(cells) - 1, statistic], dtype=torch.float64) / 2
    return float(torch.special.gammaincc(*half))


def counts_of(values: torch.Tensor, law: dict[float, float]) -> dict[float, int]:
    support = torch.tensor(sorted(law), dtype=torch.float64)
    distance, nearest = (values.double()[:, None] - support).abs().min(1)
    assert distance.max() < 1e-6
    return {float(support[j]): int((nearest == j).sum()) for j in range(len(support))}


@pytest.mark.parametrize(("p", "samples"), [(0.3, 20), (0.3, 10), (0.1, 5), (0.5, 2)])
def test_one_draw_has_the_law_of_the_passes(p: float, samples: int) -> None:
    n, law = 400_000, oracle.law_of_std_by_counts(p, samples)
    generator = torch.Generator().manual_seed(0)
    drawn = dropout_std(torch.ones(n), p, samples=samples, generator=generator)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        passes = torch.stack([F.dropout(torch.ones(n, dtype=torch.float64), p) for _ in range(samples)]).std(0)
    assert p_value(counts_of(drawn, law), law, n) > 1e-3
    assert p_value(counts_of(passes, law), law, n) > 1e-3
    assert p_value(counts_of(drawn, law), oracle.law_of_std_by_counts(p + 0.01, samples), n) < 1e-6


def test_sampled_confidence_averages_to_the_expected() -> None:
    x = features(1, 8).float().expand(20_000, 8)
    sampled = dropout_confidence(x, samples=6, method="sampled", generator=torch.Generator().manual_seed(0))
    expected = dropout_confidence(x[:1], samples=6)
    error = sampled.std() / math.sqrt(len(sampled))
    assert (sampled.mean() - expected).abs() < 4 * error


@pytest.mark.parametrize(("p", "samples"), [(0.3, 20), (0.1, 5), (0.5, 2), (0.9, 7), (0.0, 3)])
def test_a_draw_is_the_quantile_of_one_uniform_number(p: float, samples: int) -> None:
    x = features(3, 40)
    uniform = torch.empty_like(x).uniform_(generator=torch.Generator().manual_seed(5)).numpy()
    values, probabilities = zip(*sorted(oracle.law_of_std_by_counts(p, samples).items()), strict=True)
    index = np.searchsorted(np.cumsum(probabilities)[:-1], uniform, side="right")
    expected = np.abs(x.numpy()) * np.array(values)[index]
    found = dropout_std(x, p, samples=samples, generator=torch.Generator().manual_seed(5))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11, atol=1e-14)
    options = {"samples": samples, "method": "sampled", "generator": torch.Generator().manual_seed(5)}
    confidence = dropout_confidence(x, p, rate=0.7, **options)
    np.testing.assert_allclose(confidence.numpy(), np.exp(-0.7 * expected).mean(-1), rtol=1e-11)


def test_defaults_are_those_of_the_paper() -> None:
    x = features(2, 3)
    assert torch.equal(dropout_confidence(x), dropout_confidence(x, 0.3, rate=2.25, samples=20, method="expected"))
    assert torch.equal(dropout_std(x), dropout_std(x, 0.3))
    assert not dropout_confidence(x.requires_grad_()).requires_grad


def test_without_dropout_one_value_stays_to_hand_on_a_nan() -> None:
    (never, first), (value, last) = spread_law(0.0, 20, 1e-3)
    assert (never, first, last) == (0.0, 1.0, 0.0)
    assert abs(value - math.sqrt(19 / 380)) < 1e-15


def test_confidence_of_one_vector_is_one_number() -> None:
    found = dropout_confidence(torch.tensor([1.0, -2.0]), 0.5, rate=1.0, method="limit")
    assert abs(found.item() - (math.exp(-1) + math.exp(-2)) / 2) < 1e-7
