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


@pytest.mark.parametrize("concentration", [(1.0, 1.0, 1.0), (10.0, 10.0, 10.0), (5.0, 1.0, 0.5), (1.0,) * 10])
@pytest.mark.parametrize(
    ("size", "raw", "corrected"),  # per cent, as the docstring has them
    [
        (2, (-54, -49), (-8, 1.5)),
        (5, (-22.5, -19), (-3, 1.5)),
        (10, (-11.5, -9.4), (-3, 1.5)),
        (20, (-6, -4.5), (-3, 1.5)),
    ],
)
def test_bias_of_mutual_information(
    concentration: tuple[float, ...], size: int, raw: tuple[float, float], corrected: tuple[float, float]
) -> None:
    generator = np.random.default_rng(0)
    probs = torch.from_numpy(generator.dirichlet(concentration, (size, 80_000)))
    truth = oracle.dirichlet_information(concentration)
    found = 100 * (uncertainty.mutual_information(probs).mean().item() / truth - 1)
    assert raw[0] < found < raw[1]
    assert abs(found + 100 / size) < 5
    found = 100 * (uncertainty.mutual_information(probs, corrected=True).mean().item() / truth - 1)
    assert corrected[0] < found < corrected[1]


def test_corrected_mutual_information_is_scaled_up_to_the_total() -> None:
    probs = torch.tensor([[[0.75, 0.25], [1.0, 0.0]], [[0.25, 0.75], [0.0, 1.0]]], dtype=torch.float64)
    raw, corrected = uncertainty.mutual_information(probs), uncertainty.mutual_information(probs, corrected=True)
    assert corrected[0].item() == pytest.approx(2 * raw[0].item())
    assert corrected[1] == raw[1] == uncertainty.predictive_entropy(probs)[1]


@pytest.mark.parametrize("name", NAMES)
def test_one_sample_of_one_input_without_an_axis(name: str) -> None:
    for probs in ([[0.25, 0.75]], [[1.0]], [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]):
        found = getattr(uncertainty, name)(torch.tensor(probs, dtype=torch.float64))
        assert found.item() == pytest.approx(getattr(oracle, name)(probs), abs=1e-12)
        assert getattr(uncertainty, name)(torch.tensor(probs, dtype=torch.bfloat16)).dtype == torch.float32


def test_confidence_of_a_doubt() -> None:
    doubt = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    np.testing.assert_allclose(uncertainty.exponential_confidence(doubt).numpy(), np.exp([0, -0.5, -2]), rtol=1e-14)
    np.testing.assert_allclose(
        uncertainty.exponential_confidence(doubt, 3.0).numpy(), np.exp([0, -1.5, -6]), rtol=1e-14
    )
    for dtype in (torch.float32, torch.float64):
        least = uncertainty.exponential_confidence(torch.tensor([1e4], dtype=dtype))
        assert least.item() == torch.finfo(dtype).tiny
