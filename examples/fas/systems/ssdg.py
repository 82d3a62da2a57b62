"""SSDG (CVPR 2020): live faces of all domains alike, attacks of each domain apart, on the fused feature.

    L = L_cls + λ₁ L_Ada + λ₂ L_AsTrip

L_Ada: a discriminator tells the domains of LIVE features apart, behind a gradient reversal that grows from 0 to 1.
L_AsTrip: triplets with all live samples as one cluster and each domain's attacks as another.

The paper normalises features and class weights to length 1, without a bias. The released code divides features by
√(2‖f‖), keeps the bias, and normalises the weights along the wrong axis; `released` does all three.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import (
    asymmetric_triplet_loss,
    reversal_strength,
    reverse_gradient,
    single_side_adversarial_loss,
    single_side_labels,
)
from balancekit.domains import normalise_features
from fas.data import Batch

from .base import Fusion, Output, Setup, System

ADVERSARIAL, TRIPLET = 0.5, 1.0  # λ₁ and λ₂ of three of the four released settings
STEEPNESS = 10.0  # of the reversal's growth


class SSDG(System):
    """The two losses and the normalised head around a plain fusion."""

    def __init__(self, setup: Setup, *, released: bool) -> None:
        super().__init__(Fusion(setup.backbone.streams(setup.channels)))
        self.released = released
        if not released:
            self.network.head.bias = None
        width = self.network.head.in_features
        self.discriminator = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, setup.domains)
        )

    def forward(self, inputs: dict[str, Tensor]) -> Output:
        """Classify by angles; `features` has one entry, the fused and normalised one."""
        fused = torch.cat(list(self.network.trunk(inputs).values()), -1)
        fused, head = normalise_features(fused, released=self.released), self.network.head
        if self.released:
            logits = F.linear(fused, F.normalize(head.weight, dim=0), head.bias)
        else:
            logits = F.linear(fused, normalise_features(head.weight))
        return Output(logits, {"fused": fused})

    def loss(self, output: Output, batch: Batch, progress: float) -> Tensor:
        """Classification, adversary and triplets."""
        (fused,) = output.features.values()
        reversed_ = reverse_gradient(fused, reversal_strength(progress, 1.0, k=STEEPNESS))
        adversarial = single_side_adversarial_loss(self.discriminator(reversed_), batch.domain, batch.live)
        triplet = asymmetric_triplet_loss(fused, single_side_labels(batch.live, batch.domain))
        return super().loss(output, batch, progress) + ADVERSARIAL * adversarial + TRIPLET * triplet
