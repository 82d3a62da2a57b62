"""What a rule of gradient surgery is: Gram matrices and a step's facts in, weights out.

For ReGrad, PCGrad, MGDA, MMPareto and their kin the corrected gradient is a weighted sum of the losses' gradients, with
weights that depend only on the inner products of those gradients. So a rule never sees a gradient: it sees, for each
granule, the Gram matrix of the rows, and returns one weight per row.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from balancekit._typing import Bool, Float, Int


class Step(NamedTuple):
    """The facts of one step, all detached and on the device of the Gram matrices.

    Attributes:
        losses: the unimodal losses; 0 where the modality is absent.
        confidence: one value in (0, 1] per modality; 1 where none was given.
        speed: how fast each modality learns, higher is faster; minus the loss where none was given, -inf where absent.
        present: whether the modality has a loss in this step.
        owner: the branch that owns each granule, as an index into the modalities.
        units: the largest entry of each granule's rows. The inner products of granule g are ``units[g]² · gram[g]``: a
            rule that adds up or compares the Gram matrices of several granules needs them.
    """

    losses: Float[Tensor, "m"]
    confidence: Float[Tensor, "m"]
    speed: Float[Tensor, "m"]
    present: Bool[Tensor, "m"]
    owner: Int[Tensor, "g"]
    units: Float[Tensor, "g"]


@runtime_checkable
class Rule(Protocol):
    """Weights of the gradient rows, for all granules at once and without host synchronisation.

    Row 0 is the total's gradient, row 1 + m the gradient of modality m's loss. A granule is a set of tensors that
    belongs to one branch; its combined gradient is the sum of its rows times the weights returned here.

    A rule must not depend on a common scale of the losses, and must treat modalities alike: relabelling them relabels
    the weights. :func:`balancekit.testing.check_rule` tries these laws, and those of the contract above, on your rule.

    Attributes:
        uses_total: whether the rule reads or weighs row 0. If not, row 0 of the Gram matrix is zero and the total's
            gradient passes untouched, whatever weight is returned for it, which saves a backward pass; and a tensor
            that only the own loss reaches is never measured: its granule has a Gram matrix with a single 1, for which
            the weights must be those of any positive entry, and each granule must be weighed by itself.
    """

    uses_total: bool

    def __call__(self, gram: Float[Tensor, "g r r"], step: Step) -> Float[Tensor, "g r"]:
        """Return the weights "g r" for Gram matrices "g r r"."""
        ...


class Sum:
    """The rule that changes nothing: every row counts once, as in an ordinary backward of ``total + Σ losses``.

    Example:
        >>> step = Step(*torch.zeros(3, 2), torch.ones(2, dtype=torch.bool), torch.tensor([0]), torch.ones(1))
        >>> Sum()(torch.eye(3)[None], step)
        tensor([[1., 1., 1.]])
    """

    uses_total = False

    def __call__(self, gram: Float[Tensor, "g r r"], step: Step) -> Float[Tensor, "g r"]:
        """Return ones; 0 for an absent modality."""
        ones = torch.ones_like(gram[..., 0])
        return torch.cat([ones[:, :1], ones[:, 1:] * step.present], dim=-1)

    def __repr__(self) -> str:
        return "Sum()"
