import numpy as np
import pytest
import torch

from balancekit.uncertainty import area_under_risk_coverage, brier_score, negative_log_likelihood, risk_coverage
from tests.oracles import quality as oracle


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e4])
def test_scores(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(3, 6, 4, dtype=torch.float64, generator=generator)
    labels = torch.randint(4, (6,), generator=generator)
    probs = logits.softmax(-1)
    for b, label in enumerate(labels.tolist()):
        expected = oracle.negative_log_likelihood(logits[:, b].tolist(), label)
        found = negative_log_likelihood(logits[:, b : b + 1], labels[b : b + 1])
        assert found.item() == pytest.approx(expected, rel=1e-12)
        expected = oracle.brier_score(probs[:, b].tolist(), label)
        assert brier_score(probs, labels)[b].item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(
    "uncertainty", [[3, 1, 2, 5, 4, 0], [1, 1, 0, 2, 2, 2], [0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1], [7]]
)
def test_risk_coverage(uncertainty: list[float]) -> None:
    losses = [0.5, 0.0, 2.0, 1.0, 0.25, 0.125][: len(uncertainty)]
    coverage, risk = oracle.risk_coverage(uncertainty, losses)
    inputs = torch.tensor(uncertainty, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64)
    found = risk_coverage(*inputs)
    np.testing.assert_allclose(found[0].numpy(), coverage, rtol=1e-15)
    np.testing.assert_allclose(found[1].numpy(), risk, rtol=1e-14)
    assert area_under_risk_coverage(*inputs).item() == pytest.approx(sum(risk) / len(risk), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int64])
def test_labels_of_any_integer_dtype_and_inputs_of_any_axes(dtype: torch.dtype) -> None:
    probs = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert brier_score(probs, torch.tensor(1, dtype=dtype)).item() == 0.75**2 + 0.875**2 + 0.125**2
    found = negative_log_likelihood(probs.log()[:1].expand(2, 3), torch.tensor(2, dtype=dtype))
    assert found.item() == pytest.approx(-np.log(0.25), rel=1e-14)
    wide, labels = probs[:, None, None].expand(2, 4, 5, 3), torch.full((4, 5), 1, dtype=dtype)
    assert torch.equal(brier_score(wide, labels), brier_score(probs, labels[0, 0]).expand(4, 5))
    assert negative_log_likelihood(wide, labels).shape == (4, 5)
