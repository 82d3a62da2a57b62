"""A model that returns output and features together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from balancekit._keys import keep_keys
from balancekit.branches._branches import Branches
from balancekit.branches._capture import Pool
from balancekit.branches._targets import Group


class Output(NamedTuple):
    """What :class:`MultiBranch` returns: the model's own output, and the feature of each branch that ran."""

    output: Any
    features: dict[str, Tensor]


class MultiBranch(nn.Module):
    """A model that returns its output together with the feature of each branch.

    The same as ``with branches.capture() as features: output = model(x)``, as a module: for runtimes that see only what
    a forward returns (DistributedDataParallel with ``find_unused_parameters``). The model's state-dict keys stay.

    Args:
        model: as for :class:`Branches`.
        groups: as for :class:`Branches`.
        pool: as for :class:`Branches`.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
        >>> wrapped = MultiBranch(model, {"only": "0"})
        >>> output, features = wrapped(torch.ones(3, 4))
        >>> output.shape, features["only"].shape
        (torch.Size([3, 1]), torch.Size([3, 2]))
        >>> wrapped.state_dict().keys() == model.state_dict().keys()
        True
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Mapping[str, Group],
        *,
        pool: Pool | Mapping[str, Pool] | None = None,
    ) -> None:
        super().__init__()
        self.branches = Branches(model, groups, pool=pool)
        self.model = model
        keep_keys(self, "model")

    def forward(self, *args: Any, **kwargs: Any) -> Output:
        """Run the model on any inputs."""
        with self.branches.capture() as features:
            output = self.model(*args, **kwargs)
        return Output(output, dict(features))
