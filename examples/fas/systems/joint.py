"""Joint and unimodal losses: besides the fused head, a linear head on each feature, all trained by cross-entropy.

The plainest way to keep a slow modality learning; in balanced multimodal learning the baseline that many methods do not
beat.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fas.data import Batch

from .base import Fusion, Output, Setup, System


class Joint(System):
    """Cross-entropy of the fused head plus that of each modality's own."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(Fusion(setup.backbone.streams(setup.channels)))
        self.heads = nn.ModuleDict({m: nn.Linear(self.network.trunk.width, 2) for m in setup.channels})

    def loss(self, output: Output, batch: Batch, progress: float) -> Tensor:
        """The sum of all."""
        live = batch.live.long()
        self.branch_losses = {m: F.cross_entropy(self.heads[m](f), live) for m, f in output.features.items()}
        return super().loss(output, batch, progress) + sum(self.branch_losses.values())
