"""One frozen transformer for all modalities, which travel as one batch "(m b) n d"; only adapters and head learn."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from balancekit import Branches, CrossModal, GatedCrossAttention, Parallel, Tap, dropout_confidence, hub

from .streams import Block


class Frozen(nn.Module):
    """Adapters beside the MLP of every frozen block, the first modality as the hub; one head on all class tokens.

    Args:
        names: the modalities.
        width: of a token.
        depth: number of blocks.
        heads: of attention.
        grid: side of the grid of patches, which follow the class token.
        classes: outputs of the head.
    """

    def __init__(
        self, names: Sequence[str], *, width: int, depth: int, heads: int, grid: int, classes: int = 4
    ) -> None:
        super().__init__()
        self.names, self.width = tuple(names), width
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.requires_grad_(False)
        make = partial(GatedCrossAttention, width, conv="cdc", grid=grid, dropout=0.0)
        self.cross = []
        for block in self.blocks:
            tap = Tap(block.attention, dropout_confidence)
            cross = CrossModal(names, hub(names[0], names), make, confidence=tap)
            for adapter in cross.adapters.values():
                nn.init.normal_(adapter.up.weight, std=0.02)
            block.mlp = Parallel(block.mlp, cross)
            self.cross.append(cross)
        self.head = nn.Linear(len(self.names) * width, classes)

    def branches(self) -> Branches:
        """Each modality with the adapters that write into it."""
        return Branches(self, {n: [a for cross in self.cross for a in cross.into(n)] for n in self.names})

    def proxy(self) -> Branches:
        """The adapters of the last block but one alone: above the last ones no modalities meet."""
        return Branches(self, {name: self.cross[-2].into(name) for name in self.names})

    def features(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Class tokens {modality: "b d"} of tokens {modality: "b n d"}."""
        tokens = self.blocks(torch.cat([x[name] for name in self.names]))
        return dict(zip(self.names, self.norm(tokens[:, 0]).chunk(len(self.names)), strict=True))
