"""Prototypes: one mean feature a class, and the losses that measure a branch by them.

A fused head hides which modality learns: the loss falls, and nobody sees that one branch did all the work. A prototype
needs no head of its own. Each branch keeps the mean feature of every class, a feature is classified by its distance to
those means, and the cross-entropy of that classification says how far the branch has come, on a scale that all
branches share. That number tells fast from slow, and its gradient is what surgery and modulation then balance.

==============================  ======================================================================================
``PrototypeBank``               the means, one bank for each branch: exact over an epoch, or a moving average
``prototypical_cross_entropy``  the loss of a branch: PMR's PCE; with single-side labels it is MMDG's SSP
``prototype_entropy``           the doubt of that classification; subtracted from the loss (PER) it slows a fast branch
``prototype_logits``            minus the distances, for anything else
``single_side_labels``          one class for everything genuine, one for the attacks of each domain
==============================  ======================================================================================

A step, where ``features`` and ``banks`` are dictionaries by modality::

    losses = {m: prototypical_cross_entropy(f, y, banks[m].prototypes, seen=banks[m].seen) for m, f in features.items()}
    ...
    for m, f in features.items():
        banks[m].update(f.detach(), y)                       # a moving average, one step at a time

or once an epoch: ``accumulate`` over the data, then one ``commit``. Updating after the loss and before ``backward`` is
safe. A class that no sample has shown yet is in no denominator, and its samples weigh nothing, so the first step, a
held-out domain and a rare class need no special case.
"""

from balancekit.prototypes._bank import PrototypeBank
from balancekit.prototypes._labels import single_side_labels
from balancekit.prototypes._losses import prototype_entropy, prototype_logits, prototypical_cross_entropy

__all__ = [
    "PrototypeBank",
    "prototype_entropy",
    "prototype_logits",
    "prototypical_cross_entropy",
    "single_side_labels",
]
