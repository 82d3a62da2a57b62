"""The model of the study: an encoder a modality to 64 features, a linear head on all of them, and one a modality."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WIDTH = 64


class Late(nn.Module):
    """Late fusion by concatenation. The heads of single modalities are there for the methods that ask for them."""

    def __init__(self, shapes: Mapping[str, torch.Size], classes: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m: encoder(shape) for m, shape in shapes.items()})
        self.heads = nn.ModuleDict({m: nn.Linear(WIDTH, classes) for m in shapes})
        self.head = nn.Linear(WIDTH * len(shapes), classes)

    def encode(self, views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: encoder(views[m]) for m, encoder in self.encoders.items()}

    def fuse(self, z: Mapping[str, Tensor]) -> Tensor:
        return self.head(torch.cat([*z.values()], 1))

    def alone(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self.heads[m](each) for m, each in z.items()}


def encoder(shape: torch.Size) -> nn.Module:
    """For vectors "d", windows "channels time", or patches "bands 3 3"."""
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(shape[0], 128), nn.ReLU(), nn.Linear(128, WIDTH), nn.ReLU())
    if len(shape) == 2:
        return nn.Sequential(
            nn.Conv1d(shape[0], 16, 7, stride=2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Conv1d(16, 32, 5, stride=2),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(32, WIDTH),
            nn.ReLU(),
        )
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, WIDTH),
        nn.ReLU(),
    )
