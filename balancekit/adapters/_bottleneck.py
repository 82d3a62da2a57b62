"""What all adapters of MMDG and AMA share: down to a few channels, QuickGELU, and an up-projection that starts at zero.

With it at zero the delta is zero, so a model with new adapters is the model without them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit._typing import Float


def quick_gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return x · sigmoid(1.702 x), the activation of CLIP and of the released adapters."""
    return x * torch.sigmoid(1.702 * x)


def down_projection(dim: int, width: int, **to: Any) -> nn.Linear:
    """Linear layer into the bottleneck: weight Xavier-uniform, bias zero (released code of MMDG)."""
    down = nn.Linear(dim, width, **to)
    nn.init.xavier_uniform_(down.weight)
    nn.init.zeros_(down.bias)
    return down


class UpProjection(nn.Linear):
    """Linear layer out of the bottleneck, all zero at first; a gate on its rows costs no pass over the wide result."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(
        self, input: Float[Tensor, "... w"], gate: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "... d"]:
        """Return gate · (W x + b), with the gate folded in: [gate · x, gate] [W, b]ᵀ."""
        weight = self.weight.mT.contiguous()  # in this layout autograd's product for the weight is the fast one
        if gate is None:
            return F.linear(input, weight.mT, self.bias)
        column = gate.to(input.dtype)[..., None]
        return torch.cat([input * column, column], -1) @ torch.cat([weight, self.bias[None]])
