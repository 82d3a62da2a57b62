"""balancekit: independent, backbone-agnostic primitives for balancing multimodal PyTorch models.

Two things go wrong in a model with more than one branch. A modality is *unreliable* and misleads the others through
fusion: suppress it (``uncertainty``, ``adapters``). A modality is *too fast* and the others stop learning: rebalance
(``prototypes``, ``surgery``, ``modulation``, ``losses``, ``sampling``, ``schedules``). ``branches`` says which
parameters and features belong to which modality; ``domains`` holds the losses that make features alike across sites.
``diagnostics`` says whether any of it acts. Every part works alone, in any training loop.
"""

from balancekit.adapters import (
    AMA,
    CentralDifferenceConv2d,
    CrossModal,
    GatedCrossAttention,
    Parallel,
    Tap,
    hub,
    missing,
    train_only,
)
from balancekit.branches import Branches, MultiBranch
from balancekit.diagnostics import watch
from balancekit.domains import (
    asymmetric_triplet_loss,
    reversal_strength,
    reverse_gradient,
    single_side_adversarial_loss,
)
from balancekit.modulation import OGM, modulate, pmr_weights
from balancekit.prototypes import (
    PrototypeBank,
    prototype_entropy,
    prototype_logits,
    prototypical_cross_entropy,
    single_side_labels,
)
from balancekit.surgery import MinNorm, MMPareto, PCGrad, Rebalancer, ReGrad, Rule, Step, Sum, from_torchjd
from balancekit.uncertainty import (
    CrossModalResidual,
    DeepEnsemble,
    FeatureDensity,
    MCDropout,
    dropout_confidence,
    dropout_std,
    expected_entropy,
    exponential_confidence,
    linear_dropout_moments,
    mutual_information,
    predictive_entropy,
    variation_ratio,
)

__version__ = "0.1.0"

__all__ = [
    "AMA",
    "OGM",
    "Branches",
    "CentralDifferenceConv2d",
    "CrossModal",
    "CrossModalResidual",
    "DeepEnsemble",
    "FeatureDensity",
    "GatedCrossAttention",
    "MCDropout",
    "MMPareto",
    "MinNorm",
    "MultiBranch",
    "PCGrad",
    "Parallel",
    "PrototypeBank",
    "ReGrad",
    "Rebalancer",
    "Rule",
    "Step",
    "Sum",
    "Tap",
    "asymmetric_triplet_loss",
    "dropout_confidence",
    "dropout_std",
    "expected_entropy",
    "exponential_confidence",
    "from_torchjd",
    "hub",
    "linear_dropout_moments",
    "missing",
    "modulate",
    "mutual_information",
    "pmr_weights",
    "predictive_entropy",
    "prototype_entropy",
    "prototype_logits",
    "prototypical_cross_entropy",
    "reversal_strength",
    "reverse_gradient",
    "single_side_adversarial_loss",
    "single_side_labels",
    "train_only",
    "variation_ratio",
    "watch",
]
