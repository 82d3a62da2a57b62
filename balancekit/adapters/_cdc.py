"""Central-difference convolution, folded into one ordinary convolution.

Yu et al. 2020 (CDCN, arXiv 2003.04092), in the form that MMDG (arXiv 2402.19298) uses:

    conv(x; W) − theta · conv1×1(x; Σ_k W_k)  =  conv(x; W − theta · [centre] Σ_k W_k)

The second term only reads the pixel at the centre, so it is one tap of the first.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from balancekit._checks import expect, expect_count, expect_floating, expect_number
from balancekit._typing import Float


def central_difference(weight: Float[Tensor, "o i kh kw"], theta: float) -> Float[Tensor, "o i kh kw"]:
    """Lower the centre tap of a kernel by `theta` times the kernel's sum.

    Args:
        weight: a kernel with odd sides.
        theta: share of the central difference: 0 is the kernel itself, 1 ignores a constant image altogether.

    Example:
        >>> import torch
        >>> central_difference(torch.ones(1, 1, 3, 3), 0.5)[0, 0]
        tensor([[ 1.0000,  1.0000,  1.0000],
                [ 1.0000, -3.5000,  1.0000],
                [ 1.0000,  1.0000,  1.0000]])
    """
    expect_floating("weight", weight, "'o i kh kw'", ndim=4)
    expect_number("theta", theta, low=0.0, high=1.0)
    odd = weight.shape[2] % 2 == weight.shape[3] % 2 == 1
    expect(odd, "weight", "a kernel with odd sides, which has a centre", weight)
    if theta == 0:
        return weight
    vertical, horizontal = weight.shape[2] // 2, weight.shape[3] // 2
    total = weight.sum((2, 3), keepdim=True)
    return weight - theta * F.pad(total, (horizontal, horizontal, vertical, vertical))


class CentralDifferenceConv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` that sees differences to the centre pixel; at the cost of one convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd sides.
        theta: share of the central difference in [0, 1]. 0.5 is MMDG's U-Adapter (released code); CDCN prefers 0.7.
        padding: as in `torch.nn.Conv2d`, but "same" by default, so that the centre tap lies on its own pixel.
        conv: anything else that `torch.nn.Conv2d` takes.

    Example:
        >>> import torch
        >>> conv = CentralDifferenceConv2d(2, 3, theta=1.0, bias=False)
        >>> conv(torch.ones(1, 2, 5, 5))[..., 1:-1, 1:-1].abs().max() < 1e-5  # blind to constants
        tensor(True)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        theta: float = 0.5,
        padding: int | tuple[int, int] | str = "same",
        **conv: Any,
    ) -> None:
        sides = kernel_size if isinstance(kernel_size, list | tuple) else (kernel_size,)
        for side in sides:
            expect_count("kernel_size", side)
        expect(all(side % 2 == 1 for side in sides), "kernel_size", "odd sides, which have a centre", kernel_size)
        expect_number("theta", theta, low=0.0, high=1.0)
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, **conv)
        self.theta = theta

    @property
    def kernel(self) -> Float[Tensor, "o i kh kw"]:
        """The folded kernel: what an ordinary convolution with the same output would have as its weight."""
        return central_difference(self.weight, self.theta)

    def forward(self, input: Float[Tensor, "... i y x"]) -> Float[Tensor, "... o v u"]:
        """Convolve once, with the folded kernel."""
        return self._conv_forward(input, self.kernel, self.bias)

    def extra_repr(self) -> str:
        """Return what `torch.nn.Conv2d` prints, and theta."""
        return f"{super().extra_repr()}, theta={self.theta}"
