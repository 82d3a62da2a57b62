"""balancekit: independent, backbone-agnostic primitives for balancing multimodal PyTorch models."""

from balancekit.branches import Branches, MultiBranch
from balancekit.surgery import Rebalancer, ReGrad, Rule, Step, Sum

__version__ = "0.1.0"

__all__ = ["Branches", "MultiBranch", "ReGrad", "Rebalancer", "Rule", "Step", "Sum"]
