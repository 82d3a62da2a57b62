"""A small transformer per modality, joined by uncertainty-gated adapters: MMDG (arXiv 2402.19298), Fig. 3 and Eq. 1-4.

In each block, with x¹ the tokens, and one encoder per modality m:

    x² = MHSA(LN x¹)                u = confidence of x² (UEM), one value a token
    x³ = LN(x¹ + x²)                x_out = x¹ + x² + MLP(x³) + Σ adapters into m (x³ of the others, gated by their u)
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from balancekit import Branches, CrossModal, GatedCrossAttention, dropout_confidence, hub

from .samples import TOKENS

CHANNELS = {"rgb": 3, "depth": 1, "infrared": 1}


class Output(NamedTuple):
    """What the network says of a batch."""

    logits: Tensor  # "b 2": attack, live
    features: dict[str, Tensor]  # the class token of each modality, "b d"
    confidence: dict[str, Tensor]  # of each token in the last block, "b n"; the class token comes first


class Block(nn.Module):
    """A transformer block, open in the middle so that adapters can read its normalised tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def attend(self, x: Tensor) -> Tensor:
        """x² of the tokens x¹."""
        x = self.norm1(x)
        return self.attention(x, x, x, need_weights=False)[0]


class Encoder(nn.Module):
    """64×64 pixels to 8×8 tokens and a class token, by three strided convolutions; then the blocks."""

    def __init__(self, channels: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        sizes = (channels, width // 4, width // 2, width)
        layers = [
            layer for a, b in pairwise(sizes) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
        ]
        self.stem = nn.Sequential(*layers)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + TOKENS**2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def embed(self, image: Tensor) -> Tensor:
        """Tokens "b n d" of an image "b c 64 64"."""
        patches = self.stem(image).flatten(2).mT
        return torch.cat([self.class_token.expand(len(image), -1, -1), patches], 1) + self.position


class FaceNet(nn.Module):
    """One encoder per modality, adapters between them with the first as the hub, one head on all class tokens.

    Args:
        modalities: which to look at.
        adapters: whether they exchange anything before the head.
        gated: whether the adapters see the confidence of the tokens that they listen to.
        width: of a token.
        depth: number of blocks.
        heads: of attention.
    """

    def __init__(
        self,
        modalities: Sequence[str] = tuple(CHANNELS),
        *,
        adapters: bool = True,
        gated: bool = True,
        width: int = 64,
        depth: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.modalities, self.gated, self.width = tuple(modalities), gated, width
        self.encoders = nn.ModuleDict({m: Encoder(CHANNELS[m], width, depth, heads) for m in self.modalities})
        make = partial(GatedCrossAttention, width, conv="cdc", grid=TOKENS)
        edges = hub(self.modalities[0], self.modalities) if adapters and len(self.modalities) > 1 else ()
        self.cross = nn.ModuleList(CrossModal(self.modalities, edges, make) for _ in range(depth if edges else 0))
        self.head = nn.Linear(width * len(self.modalities), 2)

    def branches(self) -> Branches:
        """Each modality with its encoder and with the adapters that write into it."""
        groups = {m: [self.encoders[m], *(a for cross in self.cross for a in cross.into(m))] for m in self.modalities}
        return Branches(self, groups)

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Classify images {modality: "b c 64 64"}."""
        encoders = list(self.encoders.values())
        tokens = [encoder.embed(inputs[m]) for m, encoder in self.encoders.items()]
        confidence = torch.empty(0)
        for layer in range(len(encoders[0].blocks)):
            blocks = [encoder.blocks[layer] for encoder in encoders]
            attended = [block.attend(x) for block, x in zip(blocks, tokens, strict=True)]
            confidence = dropout_confidence(torch.cat(attended))  # all modalities as one batch "(m b) n d"
            tokens = [x + a for x, a in zip(tokens, attended, strict=True)]
            normed = [block.norm2(x) for block, x in zip(blocks, tokens, strict=True)]
            tokens = [x + block.mlp(n) for block, x, n in zip(blocks, tokens, normed, strict=True)]
            if self.cross:
                deltas = self.cross[layer](torch.cat(normed), confidence if self.gated else None)
                tokens = [x + delta for x, delta in zip(tokens, deltas.chunk(len(tokens)), strict=True)]
        features = [encoder.norm(x[:, 0]) for encoder, x in zip(encoders, tokens, strict=True)]
        return Output(
            self.head(torch.cat(features, -1)),
            dict(zip(self.modalities, features, strict=True)),
            dict(zip(self.modalities, confidence.chunk(len(tokens)), strict=True)),
        )
