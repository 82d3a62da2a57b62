"""The baselines that everything else must beat."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from balancekit.losses import unimodal_loss
from efficacy_parts.training import Run


class Joint:
    """Cross-entropy of the fused head. Every other method is this one with something changed."""

    def __init__(self, run: Run) -> None:
        self.run, self.model = run, run.model

    def begin(self, epoch: int) -> None:
        """Before each epoch."""

    def past(self, epoch: int, share: float) -> bool:
        """Whether this share of the training is over. Papers train for about 100 epochs."""
        return epoch >= share * self.run.data.epochs

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Rows, and which modalities stay "b m" if not all do."""
        for rows in self.run.shuffled(self.run.split.train):
            yield rows, None

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(self.model.fuse(z), y)

    def after_backward(self) -> None:
        """Between backward and step."""

    def logits(self, z: dict[str, Tensor]) -> Tensor:
        """The prediction."""
        return self.model.fuse(z)


class JointAndUnimodal(Joint):
    """One cross-entropy a modality besides."""

    def __init__(self, run: Run, weight: float) -> None:
        super().__init__(run)
        self.weight = weight

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return super().loss(z, y, rows) + unimodal_loss(self.model.alone(z), y, weight=self.weight)


class Ensemble(Joint):
    """Encoders trained alone, each with its head; the prediction is the sum of their log-probabilities."""

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return unimodal_loss(self.model.alone(z), y)

    def logits(self, z: dict[str, Tensor]) -> Tensor:
        return torch.stack([o.log_softmax(1) for o in self.model.alone(z).values()]).sum(0)
