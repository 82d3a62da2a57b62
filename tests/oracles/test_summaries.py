import numpy as np
import pytest
import torch

from balancekit.uncertainty import ProbabilitySummary, ValueSummary, sample_spread
from tests.oracles import measures
from tests.oracles import summaries as oracle


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_probabilities(scale: float) -> None:
    probs, summary = (scale * draw(7, 5, 4)).softmax(-1), ProbabilitySummary()
    summary.update(probs)
    found = summary.compute()
    for b in range(5):
        samples = probs[:, b].tolist()
        for name in ("predictive_entropy", "expected_entropy", "mutual_information", "variation_ratio"):
            assert abs(getattr(found, name)[b].item() - getattr(measures, name)(samples)) < 1e-12
        for c, values in enumerate(zip(*samples, strict=True)):
            assert abs(found.mean[b, c].item() - oracle.mean(values)) < 1e-14
            assert abs(found.std[b, c].item() ** 2 - oracle.variance(values)) < 1e-14


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e12])
def test_values(offset: float) -> None:
    values, variance, summary = offset + draw(7, 5), draw(7, 5).exp(), ValueSummary()
    summary.update(values, variance)
    found = summary.compute()
    for b in range(5):
        means, variances = values[:, b].tolist(), variance[:, b].tolist()
        assert found.mean[b].item() == pytest.approx(oracle.mean(means), rel=1e-15)
        assert found.epistemic[b].item() == pytest.approx(oracle.variance(means), rel=1e-12)
        assert found.aleatoric[b].item() == pytest.approx(oracle.mean(variances), rel=1e-12)
        assert found.std[b].item() ** 2 == pytest.approx(oracle.variance(means) + oracle.mean(variances), rel=1e-12)
        assert found.total[b].item() == pytest.approx(oracle.mixture_variance(means, variances), rel=1e-12)


def test_spread() -> None:
    samples = draw(6, 3, 4, 5)
    expected = [[oracle.spread(samples[:, b, n].tolist()) for n in range(4)] for b in range(3)]
    np.testing.assert_allclose(sample_spread(samples).numpy(), expected, rtol=1e-13)
    reference = samples.std(0).square().mean(-1).sqrt()
    torch.testing.assert_close(sample_spread(samples), reference, rtol=1e-13, atol=0)
