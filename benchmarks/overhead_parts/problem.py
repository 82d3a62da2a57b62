"""A training step without its backward: a model, a batch at hand, and a function that returns the losses."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import Branches, PrototypeBank, prototypical_cross_entropy

Losses = tuple[Tensor, dict[str, Tensor]]


class Model(Protocol):
    """What the models of this benchmark offer."""

    names: tuple[str, ...]
    width: int
    head: nn.Linear

    def branches(self) -> Branches: ...

    def proxy(self) -> Branches: ...

    def features(self, x: dict[str, Tensor]) -> dict[str, Tensor]: ...


class Problem(NamedTuple):
    """A step to be measured: `losses()` runs the forward and returns the total and one loss a modality."""

    model: nn.Module
    branches: Branches
    losses: Callable[[], Losses]
    confidence: dict[str, float]

    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def owned(self) -> list[nn.Parameter]:
        return [p for parameters in self.branches.values() for p in parameters if p.requires_grad]


def banks_of(model: Model, x: dict[str, Tensor], y: Tensor) -> dict[str, PrototypeBank]:
    """Prototypes of each modality, from one forward."""
    with torch.no_grad():
        features = model.features(x)
    banks = {name: PrototypeBank(model.head.out_features, model.width, decay=0.9).to(y.device) for name in features}
    for name, feature in features.items():
        banks[name].to(feature.dtype).update(feature, y)
    return banks


def losses_of(model: Model, banks: dict[str, PrototypeBank], x: dict[str, Tensor], y: Tensor) -> Losses:
    """Cross-entropy of the head on all features, and the prototype loss of each modality (MMDG, Eq. 7-8)."""
    features = model.features(x)
    total = F.cross_entropy(model.head(torch.cat(list(features.values()), -1)), y)
    own = {n: prototypical_cross_entropy(f, y, banks[n].prototypes, seen=banks[n].seen) for n, f in features.items()}
    return total, own


def problem(model: Model, *, batch: int, tokens: int, seed: int = 0) -> Problem:
    """The model on one random batch, on the device and in the dtype of its head."""
    like, generator = model.head.weight, torch.Generator().manual_seed(seed)
    x = {n: torch.randn(batch, tokens, model.width, generator=generator).to(like) for n in model.names}
    y = (torch.arange(batch) % model.head.out_features).to(like.device)
    banks = banks_of(model, x, y)
    confidence = {name: 1 - 0.1 * i for i, name in enumerate(model.names)}
    return Problem(model, model.branches(), lambda: losses_of(model, banks, x, y), confidence)
