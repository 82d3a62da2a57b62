"""What the pictures train on: simulated, and chosen so that one modality starves the other.

Four classes. The *sound* shows each as a place in six dimensions, so noisy that it is now and then mistaken, and a
network has it at once. The *picture* shows the two bits of the class, each three times over, as the product of two
signs, and more cleanly; that takes a network some time.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, WIDTH = 4, 16
SIZES = {"sound": 6, "picture": 12}


class Data(NamedTuple):
    """Samples of both modalities, and their classes."""

    views: dict[str, Tensor]
    labels: Tensor


def data(samples: int, seed: int) -> Data:
    """Other samples for each seed, of the same kind."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % CLASSES
    places = 2 * F.normalize(torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(7)), dim=1)
    sound = places[labels] + 0.7 * torch.randn(samples, 6, generator=generator)
    bits = 1 - 2 * (labels[:, None] >> torch.arange(2) & 1)  # "n 2" of ±1
    signs = 1 - 2 * torch.randint(0, 2, (samples, 2, 3), generator=generator)
    picture = torch.stack([signs, signs * bits[:, :, None]], -1).flatten(1)
    return Data({"sound": sound, "picture": picture + 0.5 * torch.randn(samples, 12, generator=generator)}, labels)


def batches(data: Data, steps: int, size: int = 64) -> Iterator[Data]:
    """So many batches, each drawn anew."""
    for _ in range(steps):
        rows = torch.randint(0, len(data.labels), (size,))
        yield Data({m: view[rows] for m, view in data.views.items()}, data.labels[rows])


class Late(nn.Module):
    """An encoder a modality, a head on both features, and one on each."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m: encoder(size) for m, size in SIZES.items()})
        self.heads = nn.ModuleDict({m: nn.Linear(WIDTH, CLASSES) for m in SIZES})
        self.head = nn.Linear(WIDTH * len(SIZES), CLASSES)

    def encode(self, views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The feature of each modality."""
        return {m: each(views[m]) for m, each in self.encoders.items()}

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        """Logits of both together."""
        return self.head(torch.cat([*features.values()], 1))

    def alone(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits of each by itself."""
        return {m: self.heads[m](z) for m, z in features.items()}


def encoder(size: int) -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, WIDTH), nn.ReLU())
