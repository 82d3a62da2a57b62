"""The facts of one step: what a rule is told besides the Gram matrices; on one rank, or averaged over all."""

from collections.abc import Sequence

import torch
from torch import Tensor

from balancekit._distributed import all_reduce_sum, world_size
from balancekit._typing import Float
from balancekit.surgery._arguments import Facts, Losses
from balancekit.surgery._rule import Step


def local_step(
    names: Sequence[str], value: Tensor, losses: Losses, confidence: Facts | None, speed: Facts | None
) -> Step:
    """The step of this rank, one granule a branch; in the widest dtype among `value` and the losses, or float32."""
    dtype = torch.float32
    for tensor in (value, *losses.values()):
        dtype = torch.promote_types(dtype, tensor.dtype)

    def row(values: Facts, absent: float) -> Tensor:
        items = (values[name] if name in losses else absent for name in names)
        tensors = (torch.as_tensor(item, dtype=dtype, device=value.device) for item in items)
        return torch.stack([tensor.detach().mean() for tensor in tensors])

    present = torch.tensor([name in losses for name in names], device=value.device)
    with torch.no_grad():
        detached = row(losses, 0.0)
        return Step(
            losses=detached,
            confidence=torch.ones_like(detached) if confidence is None else row(confidence, 1.0),
            speed=(-detached if speed is None else row(speed, 0.0)).where(present, -torch.inf),
            present=present,
            owner=torch.arange(len(names), device=value.device),
            units=torch.ones_like(detached),
        )


def averaged_step(step: Step, collapses: bool) -> tuple[Step, Float[Tensor, "m"], bool]:
    """Facts averaged over the ranks that have the modality, how many have it, and whether all ranks collapse."""
    with torch.no_grad():
        here = step.present.to(step.losses.dtype)
        mine = [step.losses, step.confidence, step.speed.where(step.present, 0)]
        ranks, agreed, *sums = all_reduce_sum([here, here.new_tensor(collapses), *(fact * here for fact in mine)])
        present = ranks > 0
        losses, confidence, speed = (total / ranks.clamp(min=1) for total in sums)
        everywhere = step._replace(
            losses=losses,
            confidence=confidence.where(present, 1),
            speed=speed.where(present, -torch.inf),
            present=present,
        )
        return everywhere, ranks, bool(agreed == world_size())
