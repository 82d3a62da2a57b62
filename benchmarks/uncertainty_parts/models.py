"""The models of section "estimators": multi-layer perceptrons and transformers, from tiny to small."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES, RATE = 10, 0.1


class Case(NamedTuple):
    """A way to build a model, and the shape of its input."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def input(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(1))


def mlp(inputs: int, width: int, depth: int) -> nn.Module:
    """Linear, ReLU, dropout, `depth` times, and a linear head."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(RATE)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


class Block(nn.Module):
    """A pre-norm transformer block in which every dropout is an ``nn.Dropout``.

    The dropout of ``nn.TransformerEncoderLayer`` is not on in the peers' loops without gradients, and that of attention
    weights is no module, so that neither peer switches it on. With this block all do the same work.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drops = nn.ModuleList(nn.Dropout(RATE) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.drops[0](self.out(attended))
        return x + self.drops[2](self.down(self.drops[1](F.gelu(self.up(self.norms[1](x))))))


class Transformer(nn.Module):
    """Blocks on tokens, their mean, and a linear head."""

    def __init__(self, width: int, depth: int, heads: int = 4) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(1))


CASES = (
    Case("MLP 16-32x2, batch 16", partial(mlp, 16, 32, 2), (16, 16)),
    Case("MLP 64-128x3, batch 64", partial(mlp, 64, 128, 3), (64, 64)),
    Case("MLP 512-1024x3, batch 64", partial(mlp, 512, 1024, 3), (64, 512)),
    Case("transformer 32x2, 8 tokens, batch 8", partial(Transformer, 32, 2), (8, 8, 32)),
    Case("transformer 128x2, 32 tokens, batch 16", partial(Transformer, 128, 2), (16, 32, 128)),
)
LARGEST = Case("transformer 256x4, 64 tokens, batch 16", partial(Transformer, 256, 4), (16, 64, 256))
