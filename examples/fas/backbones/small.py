"""A small backbone trained from scratch: two convolutions from 64×64 pixels to 8×8 tokens, then transformer blocks.

In a block, x¹ being the tokens (MMDG, arXiv 2402.19298, Fig. 3):

    x² = MHSA(LN x¹)        x³ = LN(x¹ + x²)        x_out = x¹ + x² + MLP(x³)

In :class:`SmallStreams` every modality has weights of its own throughout; in :class:`SmallSequence` all patches meet in
the same blocks.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from balancekit import Parallel, Tap
from fas.samples import TOKENS

from .norm import BatchNorm

WIDTH, HEADS = 64, 4


class Stem(nn.Module):
    """An image "b c 64 64" as tokens "b 64 d", position included."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = WIDTH // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, half, 5, 4, 2), BatchNorm(half), nn.ReLU(),
            nn.Conv2d(half, WIDTH, 3, 2, 1), BatchNorm(WIDTH), nn.ReLU(),
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
        super().__init__(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))


class Each(nn.Module):
    """One module a modality, over a batch "(m b) …"."""

    def __init__(self, modalities: Sequence[str], make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.of = nn.ModuleDict({m: make() for m in modalities})

    def forward(self, x: Tensor) -> Tensor:
        """Send each modality's part through its own module."""
        return torch.cat([module(part) for module, part in zip(self.of.values(), x.chunk(len(self.of)), strict=True)])


class Block(nn.Module):
    """A transformer block whose parts can be tapped and accompanied."""

    def __init__(self, each: Callable[[Callable[[], nn.Module]], nn.Module]) -> None:
        super().__init__()
        self.attention, self.mlp = each(Attention), each(MLP)
        self.norm = each(lambda: nn.LayerNorm(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """From x¹ to x_out."""
        x = x + self.attention(x)
        return x + self.mlp(self.norm(x))


class Small(nn.Module):
    """What the two arrangements share."""

    width, grid = WIDTH, (TOKENS, TOKENS)

    def __init__(self, channels: Mapping[str, int], depth: int, each: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.modalities, self.depth = tuple(channels), depth
        self.stems = nn.ModuleDict({m: Stem(c) for m, c in channels.items()})
        self.blocks = nn.ModuleList(Block(each) for _ in range(depth))

    def tap(self, block: int, read: Callable[[Tensor], Tensor]) -> Tap:
        """Listen to what the attention of a block adds."""
        return Tap(self.blocks[block].attention, read)

    def beside_mlp(self, block: int, side: nn.Module) -> None:
        """Add ``side(x³)`` to the MLP's output."""
        self.blocks[block].mlp = Parallel(self.blocks[block].mlp, side)

    def beside_attention(self, block: int, side: nn.Module) -> None:
        """Add ``side(x¹)`` to the attention's output; `side` brings its own normalisation."""
        self.blocks[block].attention = Parallel(self.blocks[block].attention, side)


class SmallStreams(Small):
    """Each modality alone: class tokens "(m b) d"."""

    def __init__(self, channels: Mapping[str, int], depth: int = 1) -> None:
        super().__init__(channels, depth, lambda make: Each(tuple(channels), make))
        self.class_tokens = nn.ParameterDict({m: nn.Parameter(torch.zeros(1, 1, WIDTH)) for m in channels})
        self.norm = Each(tuple(channels), lambda: nn.LayerNorm(WIDTH))

    def own(self, modality: str) -> list[nn.Module | nn.Parameter]:
        """All of its encoder."""
        parts = [part for block in self.blocks for part in (block.attention, block.norm, block.mlp)]
        return [self.stems[modality], self.class_tokens[modality], *(p.of[modality] for p in (*parts, self.norm))]

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Class tokens of normalised images {modality: "b c 64 64"}."""
        tokens = [
            torch.cat([self.class_tokens[m].expand(len(inputs[m]), -1, -1), self.stems[m](inputs[m])], 1)
            for m in self.modalities
        ]
        x = torch.cat(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


class SmallSequence(Small):
    """The patches of all modalities in one sequence behind one class token: "b d"."""

    def __init__(self, channels: Mapping[str, int], depth: int = 1) -> None:
        super().__init__(channels, depth, lambda make: make())
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The class token of normalised images {modality: "b c 64 64"}."""
        patches = [self.stems[m](inputs[m]) for m in self.modalities]
        x = torch.cat([self.class_token.expand(len(patches[0]), -1, -1), *patches], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])
