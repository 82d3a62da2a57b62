"""Gradient surgery: what to do where the losses of several modalities pull on the same parameters.

Give each modality a loss of its own, and its gradient says where that modality wants to go. Where modalities exchange
information before the head, those gradients meet in the same tensors, agree or conflict, and the modality that learns
fastest decides. Surgery recombines them.

:class:`Rebalancer` returns a loss that joins an ordinary ``backward()``::

    balancer = Rebalancer(branches, ReGrad(), weight=0.3)
    loss = balancer(total, {"rgb": loss_rgb, "depth": loss_depth}, confidence={"rgb": u_rgb, "depth": u_depth})
    loss.backward()

======================  ==============================================================================================
:class:`ReGrad`         MMDG's rule: slow modalities are kept whole, the fast one loses what would slow them
:class:`MMPareto`       where total and own loss conflict, the shortest combination of both, made as long as their sum
:class:`PCGrad`         each gradient loses what points against another one
:class:`MinNorm`        MGDA: the shortest convex combination, a step that lowers every loss
:func:`from_torchjd`    any TorchJD weighting: UPGrad, Aligned-MTL, CAGrad and more
:class:`Sum`            no surgery: an ordinary backward of ``total + weight · Σ losses``, to compare with
:class:`Rule`           what a rule is: Gram matrices "g r r" and a :class:`Step` in, weights "g r" out; write your own
:class:`Surgery`        what one step did, for :meth:`Rebalancer.register_step_hook`
======================  ==============================================================================================

The cost follows the graph. In late fusion no loss reaches another branch, the weights are known beforehand, and
everything is one ordinary backward. Where all branches meet, M modalities take M passes besides the total's; where some
meet, or only in some layers, passes go no further than needed. Four options of the Rebalancer trade: ``low_memory``
holds the rows of one branch at a time, exactly; ``every`` and ``proxy`` measure less often or less, approximately;
``independent`` asserts late fusion where the graph cannot show it.

A rule of your own is one function of Gram matrices; :mod:`balancekit.testing` shows one, and tries its laws.
"""

from balancekit.surgery._engine import Surgery
from balancekit.surgery._min_norm import MinNorm, min_norm_weights
from balancekit.surgery._mmpareto import MMPareto, mmpareto_weights
from balancekit.surgery._pcgrad import PCGrad, pcgrad_weights
from balancekit.surgery._rebalancer import Rebalancer
from balancekit.surgery._regrad import ReGrad, regrad_weights
from balancekit.surgery._rule import Rule, Step, Sum
from balancekit.surgery._torchjd import from_torchjd

__all__ = [
    "MMPareto",
    "MinNorm",
    "PCGrad",
    "ReGrad",
    "Rebalancer",
    "Rule",
    "Step",
    "Sum",
    "Surgery",
    "from_torchjd",
    "min_norm_weights",
    "mmpareto_weights",
    "pcgrad_weights",
    "regrad_weights",
]
