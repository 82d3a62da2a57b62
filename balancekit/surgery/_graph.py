"""One look at the autograd graph: which leaves does a loss reach, and does it pass through what surgery cannot?

The walk may report more than is true (a compiled region is one node, and reaches all its inputs); that only costs time.
It would report less only where a backward writes ``.grad`` by itself; the known nodes of that kind are refused by name.
"""

from typing import Any, NamedTuple

from torch import Tensor

_REENTRANT = "CheckpointFunctionBackward"
_SINK = "_DDPSinkBackward"


class Reach(NamedTuple):
    """What a loss reaches: its leaves in a fixed order, and why separate passes through its graph would be wrong."""

    leaves: dict[Tensor, None]
    obstacle: str | None


def reach(loss: Tensor) -> Reach:
    """Walk the graph of `loss` down to its leaves.

    Raises:
        RuntimeError: if the graph holds a reentrant checkpoint, behind which no walk can look.
    """
    if loss.grad_fn is None:
        return Reach({loss: None} if loss.requires_grad else {}, None)
    leaves: dict[Tensor, None] = {}
    obstacle = None
    start = (loss.grad_fn, loss.output_nr)
    seen: set[Any] = {loss.grad_fn}
    stack: list[tuple[Any, int]] = [start]
    while stack:
        node, slot = stack.pop()
        name = type(node).__name__  # not node.name(): a custom Function may have set an attribute of that name
        if name == "AccumulateGrad":
            if node.variable.requires_grad:  # it may have been frozen since
                leaves[node.variable] = None
            continue
        edges = node.next_functions
        if name == _REENTRANT:
            raise RuntimeError(
                "losses: expected a graph that autograd.grad can follow, found a reentrant checkpoint; "
                "pass use_reentrant=False to torch.utils.checkpoint.checkpoint"
            )
        if name == _SINK:
            if node.ddp_weakref().static_graph:
                obstacle = (
                    "DistributedDataParallel with static_graph=True: a separate pass uses up its once-only reduction; "
                    "build it with static_graph=False"
                )
            edges = edges[slot : slot + 1]  # the sink joins all outputs in one node: output i goes on at edge i
        for following, index in edges:
            key = (following, index) if type(following).__name__ == _SINK else following
            if following is not None and key not in seen:
                seen.add(key)
                stack.append((following, index))
    return Reach(leaves, obstacle)
