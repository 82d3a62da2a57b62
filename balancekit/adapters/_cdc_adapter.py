"""ConvAdapter with central differences, which look for texture rather than for brightness.

The baseline "CDC-adapter" released with MMDG (arXiv 2402.19298); the convolution is that of Yu et al. 2020 (CDCN,
arXiv 2003.04092). The equations are those of :class:`ConvAdapter`, with

    conv(h) = conv(h; W) − theta · conv1×1(h; Σ_k W_k)
"""

import torch
from torch import Tensor

from balancekit._checks import expect_number
from balancekit._typing import Float
from balancekit.adapters._cdc import central_difference
from balancekit.adapters._conv_adapter import ConvAdapter


class CDCAdapter(ConvAdapter):
    """:class:`ConvAdapter` whose convolution sees differences to the centre patch; at the cost of one convolution.

    Args:
        dim: width d of the tokens.
        theta: share of the central difference: 0 is ConvAdapter itself (0.7: released code, and CDCN).
        width: as in :class:`ConvAdapter`, like all that follow.
        grid: side, or (height, width), of the grid of patches.
        prefix: tokens before the patches.
        dropout: before the up-projection, in training only.
        device: where the parameters are made.
        dtype: of the parameters.

    Example:
        >>> from torch import nn
        >>> adapter = CDCAdapter(16, theta=1.0, grid=5, prefix=0).eval()
        >>> _ = nn.init.normal_(adapter.up.weight)
        >>> delta = adapter(torch.ones(1, 25, 16)).unflatten(1, (5, 5))
        >>> bool((delta[:, 1:-1, 1:-1].abs() < 1e-4).all())  # blind to what is the same everywhere
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        theta: float = 0.7,
        width: int = 8,
        grid: int | tuple[int, int],
        prefix: int = 1,
        dropout: float = 0.1,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        expect_number("theta", theta, low=0.0, high=1.0)
        super().__init__(dim, width=width, grid=grid, prefix=prefix, dropout=dropout, device=device, dtype=dtype)
        self.theta = theta

    @property
    def kernel(self) -> Float[Tensor, "o i 3 3"]:
        """The kernel with the central difference folded in."""
        return central_difference(self.conv.weight, self.theta)

    def extra_repr(self) -> str:
        """Return the layout of the tokens, and theta."""
        return f"{super().extra_repr()}, theta={self.theta}"
