"""Samples and uncertainties go into torchmetrics as they are: what it has is not written a second time."""

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error
from torchmetrics.functional.text import perplexity

from balancekit.uncertainty import exponential_confidence, negative_log_likelihood, predictive_entropy


def test_calibration_error_of_the_mean_distribution() -> None:
    """Two samples whose mean is sure to 0.8; 3 of 5 are right: the error is 0.2."""
    high, low = torch.tensor([0.95, 0.05, 0.0]), torch.tensor([0.65, 0.05, 0.3])
    probs = torch.stack([high, low])[:, None].expand(2, 5, 3)
    labels = torch.tensor([0, 0, 0, 1, 2])
    error = multiclass_calibration_error(probs.mean(0), labels, num_classes=3, n_bins=15)
    assert error.item() == pytest.approx(0.2, abs=1e-6)


def test_auroc_of_an_uncertainty_against_what_was_wrong() -> None:
    sure, unsure, split = [0.98, 0.01, 0.01], [0.4, 0.3, 0.3], [0.5, 0.5, 0.0]
    probs = torch.tensor([[sure, unsure, sure, split]])
    labels = torch.tensor([0, 1, 1, 0])
    wrong = probs.mean(0).argmax(-1) != labels  # False, True, True, False
    doubt = predictive_entropy(probs)  # rank 1.5, 4, 1.5, 3
    expected = (1 + 1 + 0.5 + 0) / 4  # pairs of a wrong and a right one in order; a tie counts half
    assert binary_auroc(doubt, wrong.int()).item() == pytest.approx(expected)
    assert binary_auroc(1 - exponential_confidence(doubt), wrong.int()).item() == pytest.approx(expected)


def test_auroc_of_a_large_uncertainty_needs_a_scale() -> None:
    """Outside [0, 1] torchmetrics takes scores for logits: the sigmoid of 50 is 1, as is that of 80."""
    doubt, wrong = torch.tensor([50.0, 60.0, 70.0, 80.0]), torch.tensor([0, 1, 0, 1])
    assert binary_auroc(doubt, wrong).item() == 0.5
    assert binary_auroc(doubt / doubt.max(), wrong).item() == 0.75


def test_likelihood_of_one_model_is_its_perplexity() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(1, 6, 4, generator=generator), torch.randint(4, (6,), generator=generator)
    found = negative_log_likelihood(logits, labels).mean().exp()
    torch.testing.assert_close(found, perplexity(logits, labels[None]))
