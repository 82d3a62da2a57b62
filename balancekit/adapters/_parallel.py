"""A module beside another: base(x) + scale · side(x), with the base's checkpoints still valid.

MMDG (arXiv 2402.19298), Eq. 1-3: the adapters' delta joins the output of a block's MLP.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from balancekit._checks import expect, expect_number
from balancekit.adapters._transparent import Transparent


class Parallel(Transparent):
    """Add the output of `side` to that of `base`.

    The state-dict keys of the base stay as they were; those of the side start with ``side.``. The side takes the base's
    training mode, and the device and dtype of its first floating-point parameter, if it has one.

    Args:
        base: any module that returns one tensor. Its further arguments pass through; the side sees the first only. It
            may not have a ``side`` of its own, so a second Parallel goes around another module, not around this one.
        side: a module from the base's input to a tensor of the shape of the base's output.
        scale: a fixed factor on the side.

    Example:
        >>> import torch
        >>> layer = nn.Linear(4, 4)
        >>> model = nn.Sequential(layer)
        >>> model[0] = Parallel(model[0], nn.Linear(4, 4))
        >>> list(model.state_dict())
        ['0.side.weight', '0.side.bias', '0.weight', '0.bias']
        >>> x = torch.randn(2, 4)
        >>> torch.equal(model(x), layer(x) + model[0].side(x))
        True
    """

    _child: ClassVar[str] = "base"

    def __init__(self, base: nn.Module, side: nn.Module, *, scale: float = 1.0) -> None:
        super().__init__()
        expect(isinstance(base, nn.Module), "base", "a torch.nn.Module", base, error=TypeError)
        expect(isinstance(side, nn.Module), "side", "a torch.nn.Module", side, error=TypeError)
        expect_number("scale", scale)
        self.base, self.side, self.scale = base, side, scale
        self._keep_keys()
        like = next((parameter for parameter in base.parameters() if parameter.is_floating_point()), None)
        if like is not None:
            side.to(device=like.device, dtype=like.dtype)
        side.train(base.training)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return base(x, …) + scale · side(x)."""
        out = self.base(x, *args, **kwargs)
        expect(isinstance(out, Tensor), "base", "a module that returns one tensor", out, error=TypeError)
        delta = self.side(x)
        expect(delta.shape == out.shape, "side", f"an output of the base's shape {tuple(out.shape)}", delta)
        return out + self.scale * delta

    def extra_repr(self) -> str:
        """Return the scale."""
        return f"scale={self.scale}"
