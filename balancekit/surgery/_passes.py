"""Separate backward passes through a graph that stays."""

from collections.abc import Sequence

import torch
from torch import Tensor

_DONATED = (
    "losses: expected a graph that stays for several passes, found a compiled model that was compiled for one; "
    "import torch._functorch.config and set torch._functorch.config.donated_buffer = False before its first backward, "
    "together with a new torch.compiler.config.cache_key_tag: the compiler's cache on disk does not know that flag"
)


def gradients(roots: Sequence[Tensor], leaves: Sequence[Tensor], seeds: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradient of ``Σ seed · root`` with respect to each leaf; None where no root reaches it, or it was frozen.

    Autograd runs only the nodes that lie between the roots and the leaves.
    """
    trained = [i for i, leaf in enumerate(leaves) if leaf.requires_grad]  # some may have been frozen since the call
    out: list[Tensor | None] = [None] * len(leaves)
    if not trained:
        return out
    started = [seed.to(root.dtype) for root, seed in zip(roots, seeds, strict=True)]
    try:
        found = torch.autograd.grad(
            list(roots), [leaves[i] for i in trained], started, retain_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        if "donated buffers" not in str(error):
            raise
        raise RuntimeError(_DONATED) from error
    for i, gradient in zip(trained, found, strict=True):
        out[i] = gradient
    return out
