"""What the page on labels says of its measures."""

import math

import pytest
import torch
from modality_gap_parts.measures import explained, gap


def clouds(apart: float, size: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three of 400 points, whose means are `apart`, and which points are known."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(400)
    means = apart / math.sqrt(2) * torch.eye(3, 8)
    z = means[labels] + size / math.sqrt(8) * torch.randn(1200, 8, generator=generator)
    return z, labels, torch.arange(1200) % 2 == 0


def test_clouds_that_coincide_explain_nothing_and_far_ones_all() -> None:
    shares = [explained(*clouds(apart)) for apart in (0.0, 1.0, 4.0, 40.0)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0, abs=0.01)
    assert shares[-1] == pytest.approx(1, abs=1e-6)


def test_it_is_below_the_mutual_information() -> None:
    """Two clouds that cannot be told apart in half of the cases: the label is known with probability a half."""
    generator = torch.Generator().manual_seed(0)
    labels, known = torch.arange(4000) % 2, torch.arange(4000) // 2 % 2 == 0
    tells = torch.rand(4000, generator=generator) < 0.5
    z = torch.zeros(4000, 1)
    z[tells, 0] = 20.0 * labels[tells]
    assert explained(z, labels, known) <= 0.5 + 0.03


def test_the_gap_does_not_depend_on_the_scale_but_the_share_does() -> None:
    z, labels, known = clouds(3.0)
    features = [z[labels == m] for m in range(3)]
    assert gap(features) == pytest.approx(3.0, rel=0.05)
    assert gap([100 * f for f in features]) == pytest.approx(gap(features))
    assert explained(100 * z, labels, known) > 0.99 > explained(z, labels, known)


def test_distances_can_mislead() -> None:
    """A wide cloud around a narrow one: most of it is nearer to the mean of the other."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 2
    z = torch.where(labels[:, None] == 1, 60.0, 0.1) * torch.randn(2000, 2, generator=generator)
    z[:, 0] += 5.0 * (labels == 1)
    assert explained(z, labels, torch.arange(2000) // 2 % 2 == 0) < 0
