"""A small backbone trained from scratch: two convolutions from 64×64 pixels to 8×8 tokens, then transformer blocks.

In a block, x¹ being the tokens (MMDG, arXiv 2402.19298, Fig. 3):

    x² = MHSA(LN x¹)        x³ = LN(x¹ + x²)        x_out = x¹ + x² + MLP(x³)

The feature is the mean of all normalised tokens: with the few blocks that time allows, what is said to a patch, by an
adapter for instance, would not reach the class token any more. In :class:`SmallStreams` every modality has weights of
its own throughout; in :class:`SmallSequence` all patches meet in the same blocks.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from balancekit import Parallel, Tap
from fas.samples import TOKENS

from .norm import BatchNorm

WIDTH, HEADS = 64, 2
DEPTH = 1  # blocks


class Stem(nn.Module):
    """An image "b c 64 64" as tokens "b 64 d", position included."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = WIDTH // 4
        self.body = nn.Sequential(
            nn.Conv2d(channels, few, 5, 4, 2), BatchNorm(few), nn.ReLU(),
            nn.Conv2d(few, WIDTH, 3, 2, 1), BatchNorm(WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.position = nn.Parameter(0.02 * torch.randn(1, TOKENS**2, WIDTH))

    def forward(self, image: Tensor) -> Tensor:
        """Return the tokens."""
        return self.body(image).flatten(2).mT + self.position


class Attention(nn.Module):
    """x² = MHSA(LN x¹)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the attention adds to `x` "b n d"."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b n (three h d) -> three b h n d", three=3, h=HEADS)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class MLP(nn.Sequential):
    """The MLP of a block, on x³."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))


class Block(nn.Module):
    """A transformer block, whose parts can be tapped and accompanied."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm, self.mlp = Attention(), nn.LayerNorm(WIDTH), MLP()

    def forward(self, x: Tensor) -> Tensor:
        """From x¹ to x_out."""
        x = x + self.attention(x)
        return x + self.mlp(self.norm(x))


class Encoder(nn.Module):
    """What serves one modality alone."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.stem, self.class_token = Stem(channels), nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm = nn.LayerNorm(WIDTH)

    def embed(self, image: Tensor) -> Tensor:
        """Class token and patches "b 1+n d" of an image "b c 64 64"."""
        return torch.cat([self.class_token.expand(len(image), -1, -1), self.stem(image)], 1)


class SmallStreams(nn.Module):
    """Each modality alone through an encoder of its own: features {modality: "b d"}.

    The streams walk side by side, so that what stands beside a block is given all of them, {modality: "b n d"}.
    """

    width, grid = WIDTH, (TOKENS, TOKENS)

    def __init__(self, channels: Mapping[str, int], depth: int = DEPTH) -> None:
        super().__init__()
        self.modalities, self.depth = tuple(channels), depth
        self.encoders = nn.ModuleDict({m: Encoder(c, depth) for m, c in channels.items()})
        self.sides = nn.ModuleDict()  # by block, beside the MLP

    def taps(self, block: int, read: Callable[[Tensor], Tensor]) -> dict[str, Tap]:
        """Listen to what the attention of a block adds to each modality."""
        return {m: Tap(encoder.blocks[block].attention, read) for m, encoder in self.encoders.items()}

    def beside_mlp(self, block: int, side: nn.Module) -> None:
        """Add ``side(x³)`` to the MLPs' outputs; `side` takes and gives {modality: "b n d"}."""
        self.sides[str(block)] = side

    def own(self, modality: str) -> list[nn.Module | nn.Parameter]:
        """Its encoder."""
        return [self.encoders[modality]]

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features of normalised images {modality: "b c 64 64"}."""
        x = {m: encoder.embed(inputs[m]) for m, encoder in self.encoders.items()}
        for k in range(self.depth):
            blocks = {m: encoder.blocks[k] for m, encoder in self.encoders.items()}
            x = {m: x[m] + block.attention(x[m]) for m, block in blocks.items()}
            read = {m: block.norm(x[m]) for m, block in blocks.items()}
            x = {m: x[m] + block.mlp(read[m]) for m, block in blocks.items()}
            if str(k) in self.sides:
                x = {m: x[m] + added for m, added in self.sides[str(k)](read).items()}
        return {m: pooled(x[m], encoder.norm) for m, encoder in self.encoders.items()}


class SmallSequence(nn.Module):
    """The patches of all modalities in one sequence behind one class token: a feature "b d"."""

    width, grid = WIDTH, (TOKENS, TOKENS)

    def __init__(self, channels: Mapping[str, int], depth: int = DEPTH) -> None:
        super().__init__()
        self.modalities, self.depth = tuple(channels), depth
        self.stems = nn.ModuleDict({m: Stem(c) for m, c in channels.items()})
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm = nn.LayerNorm(WIDTH)

    def beside_mlp(self, block: int, side: nn.Module) -> None:
        """Add ``side(x³)`` to the MLP's output."""
        self.blocks[block].mlp = Parallel(self.blocks[block].mlp, side)

    def beside_attention(self, block: int, side: nn.Module) -> None:
        """Add ``side(x¹)`` to the attention's output; `side` brings its own normalisation."""
        self.blocks[block].attention = Parallel(self.blocks[block].attention, side)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The feature of normalised images {modality: "b c 64 64"}."""
        patches = [self.stems[m](inputs[m]) for m in self.modalities]
        x = torch.cat([self.class_token.expand(len(patches[0]), -1, -1), *patches], 1)
        for block in self.blocks:
            x = block(x)
        return pooled(x, self.norm)


def pooled(x: Tensor, norm: nn.Module) -> Tensor:
    """One feature "b d" of the tokens "b n d" behind the last block."""
    return norm(x).mean(1)
