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
:class:`Sum`            no surgery: an ordinary backward of ``total + weight · Σ losses``, to compare with
:class:`Rule`           what a rule is: Gram matrices "g r r" and a :class:`Step` in, weights "g r" out; write your own
:class:`Surgery`        what one step did, for :meth:`Rebalancer.register_step_hook`
======================  ==============================================================================================

The cost follows the graph. In late fusion no loss reaches another branch, the weights are known beforehand, and
everything is one ordinary backward. Where branches meet, M modalities take M passes besides the total's. An auxiliary
head that serves one modality belongs to its branch: name it among the branch's targets. Left outside, it is a tensor
that a unimodal loss reaches and no branch owns, and the passes are run although no branches meet.
"""

from balancekit.surgery._engine import Surgery
from balancekit.surgery._rebalancer import Rebalancer
from balancekit.surgery._regrad import ReGrad, regrad_weights
from balancekit.surgery._rule import Rule, Step, Sum

__all__ = ["ReGrad", "Rebalancer", "Rule", "Step", "Sum", "Surgery", "regrad_weights"]
