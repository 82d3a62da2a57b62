"""The adapters of MMDG written out, as what ours are compared with: nothing is folded, every map is made.

Re-derived from the equations (arXiv 2402.19298, Eq. 1-4) and the published sizes; no line is anybody's code.

    Eq. 4   softmax_j(confidence_i · q_i·k_j / √d) v_j, then a central-difference convolution as two convolutions
    Eq. 1   delta_rgb = A(rgb, depth) + A(rgb, ir)      Eq. 2, 3   delta_depth = A(depth, rgb), delta_ir = A(ir, rgb)
    uncertainty: the standard deviation of 20 passes of dropout; confidence = mean over channels of exp(-2.25 std)
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def attention(q: Tensor, k: Tensor, v: Tensor, confidence: Tensor) -> Tensor:
    """Attention whose logits "b h n n" are scaled by the confidence, expanded to one map a sample."""
    n = q.shape[2]
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    logits = logits * confidence[:, :, None].expand(-1, n, n)[:, None]
    return logits.softmax(-1) @ v


def dropout_confidence(x: Tensor, p: float = 0.3, samples: int = 20, rate: float = 2.25) -> Tensor:
    """Confidence "b n" of tokens "b n d", from passes of dropout with nothing behind them."""
    with torch.no_grad():
        std = torch.stack([F.dropout(x, p, training=True) for _ in range(samples)]).std(0)
        return torch.exp(-rate * std).mean(-1)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


class Adapter(nn.Module):
    """The U-Adapter, with the parameters of ``GatedCrossAttention(dim, conv="cdc", grid=grid)``."""

    def __init__(self, dim: int, *, grid: int, width: int = 8, heads: int = 8, theta: float = 0.5) -> None:
        super().__init__()
        self.grid, self.heads, self.theta = grid, heads, theta
        self.down_own, self.down_other = nn.Linear(dim, width), nn.Linear(dim, width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.dropout, self.up = nn.Dropout(0.2), nn.Linear(width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, own: Tensor, other: Tensor, confidence: Tensor) -> Tensor:
        x, y = quick_gelu(self.down_own(own)), quick_gelu(self.down_other(other))
        tokens = self.query(y), self.key(x), self.value(x)
        attended = attention(*(rearrange(z, "b n (h d) -> b h n d", h=self.heads) for z in tokens), confidence)
        z = self.norm(x + self.out(rearrange(attended, "b h n d -> b n (h d)")))
        start = self.central(rearrange(z[:, :1], "b n c -> b c n 1"))  # the class token is a map of one pixel
        patches = self.central(rearrange(z[:, 1:], "b (y x) c -> b c y x", y=self.grid))
        z = torch.cat([start.flatten(2), patches.flatten(2)], -1).transpose(1, 2)
        return self.up(self.dropout(quick_gelu(z)))

    def central(self, x: Tensor) -> Tensor:
        return self.conv(x) - self.theta * F.conv2d(x, self.conv.weight.sum((2, 3), keepdim=True))


class Hub(nn.Module):
    """Adapters between RGB and the two others; all three travel as one batch, in this order."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        edges = "rgb_to_depth", "depth_to_rgb", "rgb_to_ir", "ir_to_rgb"
        self.adapters = nn.ModuleDict({edge: make() for edge in edges})

    def forward(self, tokens: Tensor, confidence: Tensor) -> Tensor:
        (rgb, depth, ir), (of_rgb, of_depth, of_ir) = tokens.chunk(3), confidence.chunk(3)
        adapt = self.adapters
        to_rgb = adapt["depth_to_rgb"](rgb, depth, of_depth) + adapt["ir_to_rgb"](rgb, ir, of_ir)
        return torch.cat([to_rgb, adapt["rgb_to_depth"](depth, rgb, of_rgb), adapt["rgb_to_ir"](ir, rgb, of_rgb)])


class Block(nn.Module):
    """A block of the ViT, rewritten so that the hub stands beside its MLP."""

    def __init__(self, block: nn.Module, hub: Hub, confidence: Callable[[Tensor], Tensor] = dropout_confidence) -> None:
        super().__init__()
        self.block, self.hub, self.confidence = block, hub, confidence

    def forward(self, x: Tensor) -> Tensor:
        attended = self.block.attention(self.block.norm1(x))
        x = x + attended
        tokens = self.block.norm2(x)
        return x + self.block.mlp(tokens) + self.hub(tokens, self.confidence(attended))
