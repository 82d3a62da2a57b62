"""How much of some labels the distances to their mean features explain, and how far modalities lie apart."""

import torch
from torch import Tensor

from balancekit import PrototypeBank, prototypical_cross_entropy


def explained(z: Tensor, labels: Tensor, known: Tensor) -> float:
    """1 − PCE / H of the samples that are not `known`, prototypes from those that are; below 0, distances mislead."""
    bank = PrototypeBank(int(labels.max()) + 1, z.shape[1], decay=0.0)
    bank.update(z[known], labels[known])
    loss = prototypical_cross_entropy(z[~known], labels[~known], bank.prototypes, seen=bank.seen)
    shares = labels[~known].bincount() / (~known).sum()
    return 1 - (loss / torch.special.entr(shares).sum()).item()


def gap(features: list[Tensor]) -> float:
    """Root mean squares: of the distance of two modalities' means, over that of a feature from its own mean."""
    means = torch.stack([z.mean(0) for z in features])
    between = torch.pdist(means).square().mean()
    within = torch.stack([(z - z.mean(0)).square().sum(1).mean() for z in features]).mean()
    return (between / within).sqrt().item()
