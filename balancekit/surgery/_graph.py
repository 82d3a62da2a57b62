"""One look at the autograd graph: which leaves does a loss reach, and does it pass through what surgery cannot?

The walk may report more than is true (a compiled region is one node, and reaches all its inputs); that only costs time.
It would report less only where a backward writes ``.grad`` by itself; the known nodes of that kind are refused by name.
"""

from typing import Any, NamedTuple

from torch import Tensor

_REENTRANT = "CheckpointFunctionBackward"
_SINK = "_DDPSinkBackward"
_STATIC = (
    "DistributedDataParallel with static_graph=True: a separate pass uses up its once-only reduction; "
    "build it with static_graph=False"
)


class Reach(NamedTuple):
    """What a loss reaches: its leaves in a fixed order, and why separate passes through its graph would be wrong."""

    leaves: dict[Tensor, None]
    obstacle: str | None


class Walk:
    """Walks down several graphs that share most of their nodes; each node is looked at once."""

    def __init__(self) -> None:
        self._following: dict[Any, list[Any]] = {}  # by place: a node, or an output of DDP's sink

    def reach(self, loss: Tensor) -> Reach:
        """What `loss` reaches.

        Raises:
            RuntimeError: if its graph holds a reentrant checkpoint, behind which no walk can look.
        """
        if loss.grad_fn is None:
            return Reach({loss: None} if loss.requires_grad else {}, None)
        return self._descend([_place(loss.grad_fn, loss.output_nr)])

    def awaited(self) -> dict[Tensor, None]:
        """What any output of the forwards met so far reaches, where DistributedDataParallel looks for what is unused.

        It waits for the gradients of all these leaves, also of those that no loss reaches.
        """
        sinks = dict.fromkeys(place[0] for place in self._following if type(place) is tuple)
        starts = [(sink, slot) for sink in sinks for slot in range(len(sink.next_functions))]
        return self._descend(starts).leaves

    def _descend(self, starts: list[Any]) -> Reach:
        leaves: dict[Tensor, None] = {}
        obstacle = None
        seen, stack = set(starts), list(starts)
        while stack:
            place = stack.pop()
            following = self._following.get(place)
            if following is None:
                following = self._following[place] = _look(place)
            if not following:
                leaf = getattr(place, "variable", None) if type(place).__name__ == "AccumulateGrad" else None
                if leaf is not None and leaf.requires_grad:  # it may have been frozen since
                    leaves[leaf] = None
            elif type(place) is tuple and place[0].ddp_weakref().static_graph:
                obstacle = _STATIC
            for each in following:
                if each not in seen:
                    seen.add(each)
                    stack.append(each)
        return Reach(leaves, obstacle)


def _place(node: Any, slot: int) -> Any:
    return (node, slot) if type(node).__name__ == _SINK else node


def _look(place: Any) -> list[Any]:
    """The places that lie directly below."""
    node, slot = place if type(place) is tuple else (place, 0)
    if type(node).__name__ == _REENTRANT:  # not node.name(): a custom Function may have set an attribute of that name
        raise RuntimeError(
            "losses: expected a graph that autograd.grad can follow, found a reentrant checkpoint; "
            "pass use_reentrant=False to torch.utils.checkpoint.checkpoint"
        )
    edges = node.next_functions
    if type(place) is tuple:  # the sink joins all outputs in one node: output i goes on at edge i
        edges = edges[slot : slot + 1]
    return [_place(below, index) for below, index in edges if below is not None]
