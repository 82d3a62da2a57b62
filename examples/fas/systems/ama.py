"""ViT + AMA (arXiv 2302.05744, Fig. 1): all patches in one sequence, an adapter beside each half block.

x' = MHSA(LN x) + x + AMA₁(LN x)        x'' = MLP(LN x') + x' + AMA₂(LN x')
"""

from collections.abc import Mapping

from torch import Tensor, nn

from balancekit import AMA
from fas.backbones import Sequence

from .base import Output, Setup, System


class OneSequence(nn.Module):
    """A sequence trunk and a head on its feature."""

    def __init__(self, trunk: Sequence) -> None:
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(trunk.width, 2)

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Classify normalised images {modality: "b c h w"}."""
        return Output(self.head(self.trunk(inputs)))


def vit_ama(setup: Setup) -> System:
    """The system: cross-entropy."""
    trunk = setup.backbone.sequence(setup.channels)
    for block in range(trunk.depth):
        for beside in (trunk.beside_attention, trunk.beside_mlp):
            beside(block, AMA(tuple(setup.channels), trunk.width, grid=trunk.grid))
    return System(OneSequence(trunk))
