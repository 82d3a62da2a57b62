import numpy as np
import pytest
import torch

from balancekit.uncertainty import linear_dropout_moments
from tests.oracles import linear_moments as oracle


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.8])
def test_moments(p: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 6, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    bias = torch.randn(4, dtype=torch.float64, generator=generator)
    mean, variance = linear_dropout_moments(x, weight, bias, p)
    full_mean, covariance = linear_dropout_moments(x, weight, bias, p, covariance="full")
    assert mean.shape == variance.shape == (2, 3, 4)
    assert covariance.shape == (2, 3, 4, 4)
    assert torch.equal(mean, full_mean)
    for i in np.ndindex(2, 3):
        true_mean, true_covariance = oracle.moments(x[i].numpy(), weight.numpy(), bias.numpy(), p)
        np.testing.assert_allclose(mean[i].numpy(), true_mean, atol=1e-12)
        np.testing.assert_allclose(variance[i].numpy(), np.diag(true_covariance), atol=1e-11)
        np.testing.assert_allclose(covariance[i].numpy(), true_covariance, atol=1e-11)


def test_no_bias_is_a_bias_of_zero() -> None:
    x, weight = torch.ones(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    mean, variance = linear_dropout_moments(x, weight, p=0.5)
    true_mean, true_covariance = oracle.moments(x.numpy(), weight.numpy(), np.zeros(3), 0.5)
    np.testing.assert_allclose(mean.numpy(), true_mean, atol=1e-12)
    np.testing.assert_allclose(variance.numpy(), np.diag(true_covariance), atol=1e-12)


def test_the_rate_is_three_tenths_by_default() -> None:
    mean, variance = linear_dropout_moments(torch.tensor([1.0, 2.0]).double(), torch.tensor([[3.0, 1.0]]).double())
    assert mean.tolist() == [5.0]
    np.testing.assert_allclose(variance.numpy(), [13 * 0.3 / 0.7], rtol=1e-14)


@pytest.mark.parametrize("wide", ["x", "weight", "bias"])
@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_computed_in_the_widest_dtype(wide: str, covariance: str) -> None:
    inputs = {"x": torch.ones(3), "weight": torch.ones(2, 3), "bias": torch.ones(2)}
    half = {name: value.bfloat16() for name, value in inputs.items()}
    expected = linear_dropout_moments(**inputs, covariance=covariance)
    for found, value in zip(linear_dropout_moments(**half, covariance=covariance), expected, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, value)
    for found in linear_dropout_moments(**half | {wide: inputs[wide].double()}, covariance=covariance):
        assert found.dtype == torch.float64
