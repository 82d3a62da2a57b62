"""Adaptive multimodal adapter: one convolution looks at all modalities, and a weight says how much each is worth.

AMA (Yu et al. 2023, "Rethinking Vision Transformer and Masked Autoencoder in Multimodal Face Anti-Spoofing",
arXiv 2302.05744), Fig. 1, for m modalities whose patches stand in one sequence:

    h     = QuickGELU(down tokens)                              d → width
    maps  = [h of modality 1; …; h of modality m]               channels side by side: m·width of them on each patch
    f     = conv maps                                           3×3 without bias, m·width → width
    w     = sigmoid(gate mean(maps over the patches))           m·width → m without bias: one for each modality
    delta = up Dropout(QuickGELU([prefix; w₁ f; …; w_m f]))     up = 0 at the start
            prefix = conv [h; …; h] of a prefix token           as a map of one pixel
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from balancekit._checks import expect, expect_count, expect_device, expect_floating, expect_number, expect_shape
from balancekit._typing import Bool, Float
from balancekit.adapters._bottleneck import UpProjection, down_projection, quick_gelu
from balancekit.adapters._missing import Modal
from balancekit.adapters._tokens import as_grid, convolve_tokens


class ModalityGate(nn.Module):
    """From the maps of all modalities to a weight in (0, 1) for each; 0 for a modality that the sample lacks."""

    def __init__(self, count: int, width: int, **to: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(count * width, count, bias=False, **to)

    def forward(
        self, maps: Float[Tensor, "b n md"], present: Bool[Tensor, "m b"] | None = None
    ) -> Float[Tensor, "b m"]:
        """Return the weights."""
        weights = torch.sigmoid(self.linear(maps.mean(1)))
        return weights if present is None else weights.masked_fill(~present.T, 0)


class AMA(Modal):
    """Adapter for modalities that pass through one transformer as one sequence [prefix; patches 1; patches 2; …].

    The paper puts one beside the attention and one beside the MLP of every block, where both read the normalised
    tokens, and trains nothing else but the head:

        block.attn = Parallel(block.attn, AMA(("rgb", "depth", "ir"), 768, grid=14))
        block.mlp = Parallel(block.mlp, AMA(("rgb", "depth", "ir"), 768, grid=14))

    The weights are the output of the submodule `gate`, so a :class:`Tap` or a forward hook of PyTorch reads them out.

    Within :func:`missing`, a modality that a sample lacks counts as features 0 and has weight 0 and a delta of exact
    zeros, whatever its tokens hold. The prefix tokens belong to no modality and go on. The attention of the backbone
    is not this module's: it still sees those tokens, so fill their place with something finite, or mask them there.

    Args:
        modalities: names, in the order of the sequence.
        dim: width d of the tokens.
        width: bottleneck (8: the released class for three modalities; its variants for two have 64).
        grid: side, or (height, width), of the grid of patches of each modality.
        prefix: tokens before the patches (the class token).
        dropout: before the up-projection, in training only (0.1: released code).
        device: where the parameters are made.
        dtype: of the parameters.

    Example:
        >>> from balancekit.adapters import Tap
        >>> ama = AMA(("rgb", "depth", "ir"), 16, grid=3)
        >>> weights = Tap(ama.gate, lambda w: w)
        >>> tokens = torch.randn(2, 1 + 3 * 9, 16)
        >>> bool((ama(tokens) == 0).all())  # the model that it joins is unchanged at the start
        True
        >>> weights.value.shape  # a weight for each sample and modality
        torch.Size([2, 3])

    Method:
        Name: AMA
        Paper: Yu et al., arXiv 2302.05744
        Equation: in its docstring
        Hook: inside the backbone
        Cost: adapters
        Modalities: any
        Test: tests/oracles/test_conv_adapters.py
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        *,
        width: int = 8,
        grid: int | tuple[int, int],
        prefix: int = 1,
        dropout: float = 0.1,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(modalities)
        expect_count("dim", dim)
        expect_count("width", width)
        expect_count("prefix", prefix, low=0)
        expect_number("dropout", dropout, low=0.0, high=1.0)
        self.dim, self.grid, self.prefix = dim, as_grid(grid), prefix
        m, to = len(self.modalities), {"device": device, "dtype": dtype}
        self.down = down_projection(dim, width, **to)
        self.conv = nn.Conv2d(m * width, width, 3, padding="same", bias=False, **to)
        self.gate = ModalityGate(m, width, **to)
        self.dropout = nn.Dropout(dropout)
        self.up = UpProjection(width, dim, **to)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the delta of the tokens."""
        self._check(tokens)
        m, absent = len(self.modalities), self._absent()
        h = _hide(quick_gelu(self.down(_hide(tokens, absent))), absent)
        maps = rearrange(h[:, self.prefix :], "b (m n) d -> b n (m d)", m=m)
        weights = self.gate(maps, self._present)
        prefix = repeat(h[:, : self.prefix], "b n d -> b n (m d)", m=m)
        f = convolve_tokens(torch.cat([prefix, maps], 1), self.conv.weight, self.grid, self.prefix)
        patches = rearrange(weights[:, :, None, None] * f[:, None, self.prefix :], "b m n d -> b (m n) d")
        z = torch.cat([f[:, : self.prefix], patches], 1)
        return _hide(self.up(self.dropout(quick_gelu(z))), absent)

    def _absent(self) -> Bool[Tensor, "b n 1"] | None:
        """Which tokens are patches of a modality that the sample lacks."""
        if self._present is None:
            return None
        patches = repeat(~self._present, "m b -> b (m n) 1", n=self.grid[0] * self.grid[1])
        return F.pad(patches, (0, 0, self.prefix, 0))

    def _check(self, tokens: Tensor) -> None:
        m, (h, w) = len(self.modalities), self.grid
        expect_floating("tokens", tokens, "'b n d'", ndim=3)
        b, n, d = tokens.shape
        expect(d == self.dim, "tokens", f"tokens of width {self.dim}", tokens)
        count = self.prefix + m * h * w
        expect(n == count, "tokens", f"{self.prefix} prefix + {m} modalities · {h}·{w} grid = {count} tokens", tokens)
        if self._present is not None:
            expect_shape("present", self._present, (m, b))
            expect_device("present", self._present, tokens)

    def extra_repr(self) -> str:
        """Return the modalities and the layout of the tokens."""
        return f"{self.modalities}, grid={self.grid}, prefix={self.prefix}"


def _hide(x: Tensor, absent: Tensor | None) -> Tensor:
    """Put exact zeros in the place of what is absent, NaN and inf included; they get no gradient either."""
    return x if absent is None else x.masked_fill(absent, 0)
