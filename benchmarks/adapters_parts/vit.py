"""A plain vision transformer, as anybody writes one; it knows nothing of adapters."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

BASE = {"width": 768, "depth": 12, "heads": 12, "grid": 14}  # ViT-B/16 at 224 pixels
SMALL = {"width": 192, "depth": 4, "heads": 3, "grid": 14}


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Images "(m b) c y x" of m modalities to logits: one head on the class tokens of a sample, side by side."""

    def __init__(self, *, width: int, depth: int, heads: int, grid: int, modalities: int = 3) -> None:
        super().__init__()
        self.modalities = modalities
        self.patches = nn.Conv2d(3, width, 16, stride=16)
        self.start = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + grid**2, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(modalities * width, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = rearrange(self.patches(images), "b d y x -> b (y x) d")
        x = torch.cat([self.start.expand(x.shape[0], -1, -1), x], 1) + self.places
        x = self.norm(self.blocks(x))[:, 0]
        return self.head(rearrange(x, "(m b) d -> b (m d)", m=self.modalities))


def frozen_vit(size: dict[str, Any]) -> ViT:
    """Equal ones in every call: all frozen but the head."""
    torch.manual_seed(0)
    model = ViT(**size).requires_grad_(False)
    model.head.requires_grad_(True)
    return model
