"""The facts of one step: what a rule is told besides the Gram matrices; on one rank, or averaged over all."""

import zlib
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from balancekit._checks import expect
from balancekit._distributed import all_reduce_sum, world_size
from balancekit._typing import Float
from balancekit.surgery._arguments import Facts, Losses
from balancekit.surgery._gram import on_device
from balancekit.surgery._rule import Step
from balancekit.surgery._survey import Survey


def local_step(
    names: Sequence[str], value: Tensor, losses: Losses, confidence: Facts | None, speed: Facts | None
) -> Step:
    """The step of this rank, one granule a branch; in the widest dtype among `value` and the losses, or float32."""
    dtype = torch.float32
    for tensor in (value, *losses.values()):
        dtype = torch.promote_types(dtype, tensor.dtype)

    def row(values: Facts, absent: float) -> Tensor:
        items = (values[name] if name in losses else absent for name in names)
        tensors = (item if isinstance(item, Tensor) else on_device(item, value.device, dtype) for item in items)
        return torch.stack([tensor.detach().to(value.device, dtype).mean() for tensor in tensors])

    present = on_device([name in losses for name in names], value.device)
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


def across_ranks(
    names: Sequence[str], step: Step, found: Survey, owners: Mapping[Tensor, int]
) -> tuple[Step, Float[Tensor, "m"], Survey, set[int]]:
    """Facts averaged over the ranks that have a modality, how many have it, and what the losses reach on any rank."""
    with torch.no_grad():
        leaves = [leaf for leaf in owners if leaf.requires_grad]
        count = 1 + len(step.losses)
        nothing: frozenset[int] = frozenset()
        table = [
            [float(leaf in found.shares), *(float(r in found.reached_by.get(leaf, nothing)) for r in range(count))]
            for leaf in leaves
        ]
        # the last line of the table: whether ranks agree on what stands where, and the numbers outside the branches
        mark = zlib.crc32(repr(list(names)).encode())
        table.append([float(mark), *(found.outside.get(r, 0.0) for r in range(count))])
        dtype = step.losses.dtype
        here = step.present.double()  # a rank without the widest loss must send as much as the others
        mine = [step.losses, step.confidence, step.speed.where(step.present, 0)]
        reached = on_device(table, here.device, here.dtype)
        ranks, reached, *sums = all_reduce_sum([here, reached, *(fact * here for fact in mine)])
        present = ranks > 0
        losses, confidence, speed = ((total / ranks.clamp(min=1)).to(dtype) for total in sums)
        averaged = step._replace(
            losses=losses,
            confidence=confidence.where(present, 1),
            speed=speed.where(present, -torch.inf),
            present=present,
        )
        # the one look from the host, only with sync: which passes to run is decided there
        *rows, (marks, *outside), (_, _, *here_or_there) = torch.cat([reached, F.pad(ranks, (2, 0))[None]]).tolist()
        expect(marks == mark * world_size(), "branches", "the same names in the same order on all ranks", list(names))
        everywhere = {
            leaf: frozenset(r for r, flag in enumerate(flags) if flag)
            for leaf, (_, *flags) in zip(leaves, rows, strict=True)
            if any(flags)
        }
        others = {leaf: rows for leaf, rows in found.reached_by.items() if leaf not in owners}
        somewhere = {m for m, flag in enumerate(here_or_there) if flag}
        shares = found.shares | {
            leaf: takers / world_size() for leaf, (takers, *_) in zip(leaves, rows, strict=True) if leaf in found.shares
        }
        outside = {r: numbers / world_size() for r, numbers in enumerate(outside)}
        survey = found._replace(reached_by={**everywhere, **others}, outside=outside, shares=shares)
        return averaged, ranks.to(dtype), survey, somewhere
