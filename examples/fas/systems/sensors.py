"""How far each patch of each sensor is from what training saw: a confidence that no gradient trains.

A patch is described by its mean, spread, smallest and largest value in each channel. Its distance from those of the
training data at the same place (FeatureDensity, PaDiM's form) becomes a confidence by the quantiles of held-out
development data: uniform on data like those, near 0 on a patch that a sensor spoiled, and at a site whose sensor is
unlike any that training saw.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import FeatureDensity

from .base import Looks


class SensorDensity(nn.Module):
    """Confidence {modality: "b 1+n"} of normalised images; the class token has the mean of its patches'."""

    def __init__(self, channels: Mapping[str, int], grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        places = grid[0] * grid[1]
        self.density = nn.ModuleDict(
            {m: FeatureDensity(4 * c, covariance="full", classes=places) for m, c in channels.items()}
        )
        self.register_buffer("places", torch.arange(places), persistent=False)
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, train: Looks, dev: Looks) -> None:
        """Means and covariance from the training data, quantiles from the development data."""
        for looks, method in ((train, "accumulate"), (dev, "calibrate")):
            for batch in looks():
                for m, density in self.density.items():
                    getattr(density, method)(patches(batch.inputs[m], self.grid), self.places)
            for density in self.density.values():
                density.commit()
        self.fitted.fill_(True)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the confidence, detached."""
        trust = {m: d.confidence(patches(inputs[m], self.grid), self.places) for m, d in self.density.items()}
        return {m: torch.cat([t.mean(1, keepdim=True), t], 1) for m, t in trust.items()}


def patches(image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean, deviation, minimum and maximum of each patch and channel, "b n (4 c)"."""
    mean = F.adaptive_avg_pool2d(image, grid)
    deviation = (F.adaptive_avg_pool2d(image.square(), grid) - mean.square()).clamp(min=0).sqrt()
    low, high = -F.adaptive_max_pool2d(-image, grid), F.adaptive_max_pool2d(image, grid)
    return torch.cat([mean, deviation, low, high], 1).flatten(2).mT
