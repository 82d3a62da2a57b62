"""A convolution on the tokens of a transformer: the patches on their grid, the prefix tokens as 1×1 maps.

On a 1×1 map, zero padding leaves only the centre tap of a kernel, so a prefix token (the class token) goes through a
linear layer with that tap (as in the released body of MMDG, arXiv 2402.19298):

    patches = conv(patches on the grid; kernel)        prefix = prefix @ kernel[:, :, centre]ᵀ
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from balancekit._checks import expect, expect_count, expect_device, expect_floating, expect_shape
from balancekit._typing import Float

Grid = tuple[int, int]


def as_grid(grid: int | tuple[int, int]) -> Grid:
    """Turn the side of a square grid into (height, width), and check it."""
    sides = grid if isinstance(grid, tuple) else (grid, grid)
    expect(len(sides) == 2, "grid", "an integer or (height, width)", grid)
    for side in sides:
        expect_count("grid", side)
    return sides[0], sides[1]


def expect_grid(argument: str, tokens: Tensor, grid: Grid, prefix: int) -> None:
    """Require as many tokens as the prefix and the patches of the grid together."""
    (h, w), n = grid, tokens.shape[1]
    expect(n == prefix + h * w, argument, f"{prefix} prefix + {h}·{w} grid = {prefix + h * w} tokens", tokens)


def convolve_tokens(
    tokens: Float[Tensor, "b n i"], kernel: Float[Tensor, "o i kh kw"], grid: int | Grid, prefix: int = 1
) -> Float[Tensor, "b n o"]:
    """Convolve tokens over the grid of their patches, with zero padding and stride 1.

    Args:
        tokens: first the `prefix` tokens, then the patches row by row.
        kernel: odd sides. A central difference is folded in beforehand (:func:`central_difference`).
        grid: side, or (height, width), of the grid of patches.
        prefix: how many tokens stand before the patches; each is a map of one pixel.

    Example:
        >>> kernel = torch.ones(1, 1, 3, 3)
        >>> convolve_tokens(torch.ones(1, 5, 1), kernel, grid=(2, 2), prefix=1).flatten()
        tensor([1., 4., 4., 4., 4.])
    """
    grid = as_grid(grid)
    expect_count("prefix", prefix, low=0)
    expect_floating("tokens", tokens, "'b n i'", ndim=3)
    expect_floating("kernel", kernel, "'o i kh kw'", ndim=4)
    expect_shape("kernel", kernel, (kernel.shape[0], tokens.shape[2], *kernel.shape[2:]))
    odd = kernel.shape[2] % 2 == kernel.shape[3] % 2 == 1
    expect(odd, "kernel", "a kernel with odd sides, which has a centre", kernel)
    expect_device("kernel", kernel, tokens)
    expect_grid("tokens", tokens, grid, prefix)
    centre = kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2]
    patches = tokens[:, prefix:].mT.unflatten(2, grid)
    patches = F.conv2d(patches, kernel, padding="same").flatten(2).mT
    return torch.cat([F.linear(tokens[:, :prefix], centre), patches], dim=1)
