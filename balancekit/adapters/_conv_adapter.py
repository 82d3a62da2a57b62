"""An adapter for one modality that sees the neighbours of each patch: a convolution in a bottleneck.

Convpass (Jie & Deng 2022, arXiv 2207.07039), in the form that AMA (Yu et al. 2023, arXiv 2302.05744) uses for a single
modality and calls ConvAdapter:

    h     = QuickGELU(down tokens)                  d → width
    delta = up Dropout(QuickGELU(conv h))           width → d; up = 0 at the start
                                                    conv: 3×3 without bias, on the grid of patches
"""

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_count, expect_floating, expect_number
from balancekit._typing import Float
from balancekit.adapters._bottleneck import UpProjection, down_projection, quick_gelu
from balancekit.adapters._tokens import as_grid, convolve_tokens, expect_grid


class ConvAdapter(nn.Module):
    """Adapter with a 3×3 convolution over the patches; returns what is to be added to the output of a block's part.

    The prefix tokens meet no neighbour: each is a map of one pixel, and goes through the centre tap of the kernel. AMA
    puts one adapter beside the attention and one beside the MLP of every block, where both read the normalised tokens:

        block.attn = Parallel(block.attn, ConvAdapter(768, grid=14))
        block.mlp = Parallel(block.mlp, ConvAdapter(768, grid=14))

    The convolution has no bias, unlike that of Convpass, and PyTorch's own initialisation.

    Args:
        dim: width d of the tokens.
        width: bottleneck (8: Convpass, and AMA for three modalities).
        grid: side, or (height, width), of the grid of patches.
        prefix: tokens before the patches (the class token).
        dropout: before the up-projection, in training only (0.1: the released code of AMA's adapter).
        device: where the parameters are made.
        dtype: of the parameters.

    Example:
        >>> adapter = ConvAdapter(16, grid=(2, 3)).eval()
        >>> tokens = torch.randn(4, 1 + 6, 16)
        >>> bool((adapter(tokens) == 0).all())  # the model that it joins is unchanged at the start
        True
        >>> _ = nn.init.normal_(adapter.up.weight)
        >>> other = tokens.clone()
        >>> other[:, 1] += 1  # the patch in the upper left corner
        >>> (adapter(other) != adapter(tokens)).any(-1)[0]  # its neighbours notice: the class token is none
        tensor([False,  True,  True, False,  True,  True, False])
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int = 8,
        grid: int | tuple[int, int],
        prefix: int = 1,
        dropout: float = 0.1,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        expect_count("dim", dim)
        expect_count("width", width)
        expect_count("prefix", prefix, low=0)
        expect_number("dropout", dropout, low=0.0, high=1.0)
        self.dim, self.grid, self.prefix = dim, as_grid(grid), prefix
        to = {"device": device, "dtype": dtype}
        self.down = down_projection(dim, width, **to)
        self.conv = nn.Conv2d(width, width, 3, padding="same", bias=False, **to)
        self.dropout = nn.Dropout(dropout)
        self.up = UpProjection(width, dim, **to)

    @property
    def kernel(self) -> Float[Tensor, "o i 3 3"]:
        """What the bottleneck is convolved with."""
        return self.conv.weight

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the delta of the tokens: first the prefix, then the patches row by row."""
        expect_floating("tokens", tokens, "'b n d'", ndim=3)
        expect(tokens.shape[2] == self.dim, "tokens", f"tokens of width {self.dim}", tokens)
        expect_grid("tokens", tokens, self.grid, self.prefix)
        h = quick_gelu(self.down(tokens))
        z = convolve_tokens(h, self.kernel, self.grid, self.prefix)
        return self.up(self.dropout(quick_gelu(z)))

    def extra_repr(self) -> str:
        """Return the layout of the tokens."""
        return f"grid={self.grid}, prefix={self.prefix}"
