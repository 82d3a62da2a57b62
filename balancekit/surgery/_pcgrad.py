"""PCGrad: take out of each gradient what points against another.

Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020 (arXiv 2001.06782), Algorithm 1. Each gradient g_i
meets the other gradients g_j one after another, in random order:

    g_i' ← g_i' - (<g_i', g_j> / |g_j|²) g_j        if <g_i', g_j> < 0

and the result is Σ_i g_i'. The objectives are the total and the losses of the modalities. The random order is replaced
by the mean over all orders, exactly: nothing is drawn, all ranks agree, and modalities are treated alike.

Every g_i' is a combination of the rows, g_i' = Σ_r w_r g_r, so its coefficients are all that is needed:

    <g_i', g_j> = Σ_r w_r G_rj
"""

from itertools import permutations

import torch
from torch import Tensor

from balancekit._checks import expect
from balancekit._typing import Float
from balancekit.surgery._gram import on_device
from balancekit.surgery._rule import Step

_MOST_ROWS = 7  # 7 rows times 6! orders


def pcgrad_weights(gram: Float[Tensor, "g r r"]) -> Float[Tensor, "g r"]:
    """Weights of the rows in Σ_i g_i', the mean over all orders. A zero row is no objective: its weight is 0.

    Args:
        gram: inner products of at most 7 rows on each granule.

    Example:
        Of two gradients in conflict, each keeps what is across the other: (0.5, 0.5) and (0, 1).

        >>> g = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
        >>> pcgrad_weights((g @ g.T)[None]) @ g
        tensor([[0.5000, 1.5000]])
    """
    r = gram.shape[-1]
    expect(r <= _MOST_ROWS, "gram", f"at most {_MOST_ROWS} rows, since all orders of them are visited", r)
    index = torch.arange(r, device=gram.device)
    orders = on_device(list(permutations(range(r - 1))), gram.device, torch.int64)  # "p s"
    others = orders + (orders >= index[:, None, None])  # "r p s": the p orders of the rows other than r
    square = gram.diagonal(dim1=-2, dim2=-1)
    unit = torch.eye(r, dtype=gram.dtype, device=gram.device)
    w = unit.unsqueeze(1).expand(len(gram), r, len(orders), r)
    for j in others.unbind(-1):  # "r p"
        dot, square_j = (w * gram[:, j]).sum(-1), square[:, j]
        conflict = (dot < 0) & (square_j > 0)
        along = torch.where(conflict, dot / torch.where(conflict, square_j, 1), 0)
        w = w - along.unsqueeze(-1) * unit[j]
    objective = (square > 0).to(gram.dtype)
    return (w.mean(-2) * objective.unsqueeze(-1)).sum(-2)


class PCGrad:
    """The rule of PCGrad, over the total and the unimodal losses, averaged over all orders.

    Where no two gradients conflict it is :class:`Sum`. Each gradient is freed of what points against another, their sum
    is not: with three gradients or more the result may still point against one of them.

    At most seven rows: the total and six modalities. A call costs r! small products a granule, which is nothing for
    three modalities and much for six.

    Example:
        >>> from balancekit.surgery import Step
        >>> step = Step(*torch.zeros(3, 2), torch.ones(2, dtype=torch.bool), torch.tensor([0]), torch.ones(1))
        >>> gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, 0.0]])  # total, first, second
        >>> PCGrad()((gradients @ gradients.T)[None], step)
        tensor([[2.0000, 1.5000, 0.0000]])

    Method:
        Name: PCGrad
        Paper: Yu et al., NeurIPS 2020, arXiv 2001.06782
        Equation: Algorithm 1
        Hook: backward
        Cost: up to M more passes where losses meet
        Modalities: any
        Test: tests/oracles/test_rules.py
    """

    uses_total = True

    def __call__(self, gram: Float[Tensor, "g r r"], step: Step) -> Float[Tensor, "g r"]:
        """Return the weights; an absent modality has a zero row, and so weight 0."""
        return pcgrad_weights(gram)

    def __repr__(self) -> str:
        return "PCGrad()"
