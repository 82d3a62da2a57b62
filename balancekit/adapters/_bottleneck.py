"""What all adapters of MMDG and AMA share: down to a few channels, QuickGELU, and an up-projection that starts at zero.

With it at zero the delta is zero, so a model with new adapters is the model without them.
"""

from typing import Any

import torch
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


def up_projection(width: int, dim: int, **to: Any) -> nn.Linear:
    """Linear layer out of the bottleneck, all zero."""
    up = nn.Linear(width, dim, **to)
    nn.init.zeros_(up.weight)
    nn.init.zeros_(up.bias)
    return up
