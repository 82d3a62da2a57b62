"""Which parameters, and which features, belong to which modality.

A model with several modalities has one *branch* per modality: the encoder of the images, the encoder of the depth maps,
and whatever else only serves that modality. :class:`Branches` names them. It is a mapping from the branch's name to its
parameters, it captures the feature that each branch produces in a forward pass, and it splits the parameters for the
optimizer. Nothing in the model changes: no key of its state dict, no line of its forward.

:class:`MultiBranch` is the same as a wrapper that returns output and features together.
"""

from balancekit.branches._branches import Branches
from balancekit.branches._multi_branch import MultiBranch, Output
from balancekit.branches._targets import Group, Target

__all__ = ["Branches", "Group", "MultiBranch", "Output", "Target"]
