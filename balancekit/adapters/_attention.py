"""U-Adapter: the other modality asks, the own tokens answer, and a confidence says how loudly it may ask.

MMDG (arXiv 2402.19298), Eq. 4 and Fig. 3(c), with the body of the released code (layer sizes, order, initialisation):

    x, y  = QuickGELU(down_own own), QuickGELU(down_other other)
    z     = LayerNorm(x + out(attention(q = query y, k = key x, v = value x, confidence)))
    delta = up Dropout(QuickGELU(conv z))            up = 0 at the start; conv: on the grid of patches, optional
"""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from balancekit._checks import expect, expect_choice, expect_count, expect_floating, expect_number, expect_shape
from balancekit._typing import Float
from balancekit.adapters._cdc import CentralDifferenceConv2d
from balancekit.adapters._gate import gated_attention
from balancekit.adapters._tokens import as_grid, convolve_tokens, expect_grid


def quick_gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return x · sigmoid(1.702 x), the activation of CLIP and of the released adapters."""
    return x * torch.sigmoid(1.702 * x)


class GatedCrossAttention(nn.Module):
    """Cross-attention adapter with a bottleneck; returns what is to be added to `own` (or to the block's output).

    Args:
        dim: width d of the own tokens.
        other_dim: width e of the other modality's tokens; `dim` by default.
        width: bottleneck (8: MMDG's released code).
        heads: attention heads; must divide `width` (8: released code, hence one channel a head).
        gate: whose confidence acts where. "query" (MMDG): the *other* modality's; a token at 0 cannot steer the
            attention, its row is the mean of the own values. "output": the other modality's; the row of delta is
            multiplied, and is exactly 0 at 0. "key": the *own* tokens', which are the keys; a token at 0 has weight 0
            in every row (all at 0: the attention contributes nothing but its bias).
        conv: None, "plain", or "cdc" (the paper's): a 3×3 convolution without bias after the attention.
        theta: share of the central difference of "cdc" (0.5: released code).
        grid: side, or (height, width), of the grid of patches; needed and read by `conv` only.
        prefix: tokens before the patches (the class token), which the convolution sees as 1×1 maps.
        dropout: before the up-projection, in training only (0.2: released code).
        device: where the parameters are made.
        dtype: of the parameters.

    Example:
        >>> adapter = GatedCrossAttention(16, gate="output", conv="cdc", grid=3).eval()
        >>> depth, rgb = torch.randn(2, 10, 16), torch.randn(2, 10, 16)
        >>> bool((adapter(depth, rgb) == 0).all())  # the model that it joins is unchanged at the start
        True
        >>> _ = nn.init.normal_(adapter.up.weight)
        >>> confidence = torch.tensor([[1.0], [0.0]]).expand(2, 10)
        >>> (adapter(depth, rgb, confidence) == 0).flatten(1).all(1)  # sample 1: rgb is not to be trusted
        tensor([False,  True])
    """

    def __init__(
        self,
        dim: int,
        *,
        other_dim: int | None = None,
        width: int = 8,
        heads: int = 8,
        gate: Literal["query", "key", "output"] = "query",
        conv: Literal["plain", "cdc"] | None = None,
        theta: float = 0.5,
        grid: int | tuple[int, int] | None = None,
        prefix: int = 1,
        dropout: float = 0.2,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        other_dim = dim if other_dim is None else other_dim
        for argument, value in (("dim", dim), ("other_dim", other_dim), ("width", width), ("heads", heads)):
            expect_count(argument, value)
        expect(width % heads == 0, "heads", f"a divisor of width = {width}", heads)
        expect_choice("gate", gate, ("query", "key", "output"))
        expect_choice("conv", conv, (None, "plain", "cdc"))
        expect(conv is None or grid is not None, "grid", "the grid of patches that conv runs on", grid)
        expect_number("theta", theta, low=0.0, high=1.0)
        expect_count("prefix", prefix, low=0)
        expect_number("dropout", dropout, low=0.0, high=1.0)
        self.dim, self.other_dim, self.heads, self.prefix = dim, other_dim, heads, prefix
        self.gate: Literal["query", "key", "output"] = gate
        self.grid = None if grid is None else as_grid(grid)
        to = {"device": device, "dtype": dtype}
        self.down_own = nn.Linear(dim, width, **to)
        self.down_other = nn.Linear(other_dim, width, **to)
        self.query = nn.Linear(width, width, bias=False, **to)
        self.key = nn.Linear(width, width, bias=False, **to)
        self.value = nn.Linear(width, width, bias=False, **to)
        self.out = nn.Linear(width, width, **to)
        self.norm = nn.LayerNorm(width, **to)
        theta = theta if conv == "cdc" else 0.0
        self.conv = None if conv is None else CentralDifferenceConv2d(width, width, theta=theta, bias=False, **to)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(width, dim, **to)
        for down in (self.down_own, self.down_other):
            nn.init.xavier_uniform_(down.weight)
            nn.init.zeros_(down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @property
    def confidence_of(self) -> Literal["own", "other"]:
        """Whose confidence :meth:`forward` wants; :class:`CrossModal` hands over that one."""
        return "own" if self.gate == "key" else "other"

    def forward(
        self,
        own: Float[Tensor, "b n d"],
        other: Float[Tensor, "b n e"],
        confidence: Float[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Return the delta of the own tokens.

        Row i asks with the other modality's token i and is added to the own token i, so both need equally many tokens.
        """
        self._check(own, other, confidence)
        x = quick_gelu(self.down_own(own))
        heard = x  # the own tokens that are keys and values
        if confidence is not None:  # a token at confidence 0 is not even looked at, so that its NaN or inf cannot leak
            distrusted = (confidence == 0)[..., None]
            if self.gate == "key":
                heard = x.masked_fill(distrusted, 0)
            else:
                other = other.masked_fill(distrusted, 0)
        y = quick_gelu(self.down_other(other))
        tokens = self.query(y), self.key(heard), self.value(heard)
        q, k, v = (rearrange(z, "b n (h d) -> b h n d", h=self.heads) for z in tokens)
        attended = (
            gated_attention(q, k, v) if self.gate == "output" else gated_attention(q, k, v, confidence, self.gate)
        )
        z = self.norm(x + self.out(rearrange(attended, "b h n d -> b n (h d)")))
        if self.conv is not None and self.grid is not None:
            z = convolve_tokens(z, self.conv.kernel, self.grid, self.prefix)
        delta = self.up(self.dropout(quick_gelu(z)))
        if self.gate == "output" and confidence is not None:
            delta = delta * confidence[..., None].to(delta.dtype)
        return delta

    def _check(self, own: Tensor, other: Tensor, confidence: Tensor | None) -> None:
        expect_floating("own", own, "'b n d'", ndim=3)
        b, n, d = own.shape
        expect(d == self.dim, "own", f"tokens of width {self.dim}", own)
        expect_floating("other", other, "'b n e'", ndim=3)
        expect_shape("other", other, (b, n, self.other_dim))
        if self.conv is not None and self.grid is not None:
            expect_grid("own", own, self.grid, self.prefix)
        if confidence is not None:
            expect_floating("confidence", confidence, "'b n'", ndim=2)
            expect_shape("confidence", confidence, (b, n))
