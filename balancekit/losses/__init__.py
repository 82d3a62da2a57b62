"""Losses: terms of the objective itself that keep a modality from being left behind.

Cross-entropy on a fused head is satisfied by one modality. Once that one is right, the gradient dies for all of them,
and the slower encoders stay where they are. The losses of this room ask for more: that each modality be right alone,
that it match a teacher of its own, that all agree, or that the classes be told apart whichever samples the modalities
come from. Most take a dictionary by modality; one that a batch lacks is left out of it.

=============================  =======================================================================================
``unimodal_loss``              each modality right alone: added to the fused loss it is the baseline to beat
``decouple``                   features for the fused head that send no gradient back (DGL)
``tcmax_loss``                 cross-entropy against all samples and classes at once; nobody starves, nothing to tune
``cosine_logits``              unimodal logits of one size, so that none outvotes the others by its norm (MMCosine)
``confidence_ranking_loss``    confidence must not rise when a modality is taken away (CML)
``feature_distillation``       each encoder's feature near that of a teacher trained alone (UMT)
``unimodal_distillation``      the same with the teachers' class probabilities besides (G²D)
``pmr_loss``                   prototypes speed the slow modality up, their entropy holds the fast one back (PMR)
``lfm_loss``                   the mean of the logits right, and the modalities in agreement (LFM)
``lfm_schedule``               the weight that moves from the first to the second
``gblend_weights``             weights of unimodal and fused losses, by how much each generalises (G-Blending)
=============================  =======================================================================================

A step of decoupled learning, where ``features``, ``heads`` and ``logits`` are dictionaries by modality::

    logits = {m: heads[m](z) for m, z in features.items()}
    fused = head(torch.cat([*decouple(features).values()], dim=-1))
    loss = F.cross_entropy(fused, labels) + unimodal_loss(logits, labels, weight=4.0)

All are computed in float32 or wider, whatever the model's dtype. Non-finite inputs give non-finite losses.
"""

from balancekit.losses._cml import confidence_ranking_loss
from balancekit.losses._decouple import decouple, unimodal_loss
from balancekit.losses._distillation import feature_distillation, unimodal_distillation
from balancekit.losses._gblend import gblend_weights
from balancekit.losses._lfm import lfm_loss, lfm_schedule
from balancekit.losses._mmcosine import cosine_logits
from balancekit.losses._pmr import pmr_loss
from balancekit.losses._tcmax import tcmax_loss

__all__ = [
    "confidence_ranking_loss",
    "cosine_logits",
    "decouple",
    "feature_distillation",
    "gblend_weights",
    "lfm_loss",
    "lfm_schedule",
    "pmr_loss",
    "tcmax_loss",
    "unimodal_distillation",
    "unimodal_loss",
]
