"""Gradient surgery. In late fusion the losses of two modalities never meet: rules between them have little to do."""

import torch.nn.functional as F
from torch import Tensor

from balancekit import MMPareto, Rebalancer, ReGrad, dropout_confidence
from efficacy_parts.training import Run

from .joint import Joint


class Surgery(Joint):
    """ReGrad on the unimodal losses, with the confidence of dropout; 0.3 is the weight in MMDG's code.

    What it does here is to weigh the loss of the fastest modality by its confidence, and the others by 1.
    """

    def __init__(self, run: Run, weight: float) -> None:
        super().__init__(run)
        self.balancer = Rebalancer(run.branches, ReGrad(), weight=weight)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        losses = {m: F.cross_entropy(o, y) for m, o in self.model.alone(z).items()}
        confidence = {m: dropout_confidence(each) for m, each in z.items()}
        return self.balancer(super().loss(z, y, rows), losses, confidence=confidence)


class Pareto(Joint):
    """MMPareto: the joint loss and a modality's own meet in its encoder."""

    def __init__(self, run: Run, weight: float) -> None:
        super().__init__(run)
        self.balancer = Rebalancer(run.branches, MMPareto(), weight=weight)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        losses = {m: F.cross_entropy(o, y) for m, o in self.model.alone(z).items()}
        return self.balancer(super().loss(z, y, rows), losses)
