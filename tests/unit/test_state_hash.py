"""The hash notices every kind of change, and no change where there is none."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from balancekit.branches import Branches
from balancekit.modulation import AGM, scale_updates
from balancekit.prototypes import PrototypeBank
from balancekit.surgery import Rebalancer, ReGrad
from balancekit.uncertainty import ProbabilitySummary
from tests.state_hash import state_hash


class World:
    """One of each kind."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
        self.twin = nn.Linear(2, 2)
        self.optimizer = torch.optim.Adam([{"name": "a", "params": self.model.parameters()}])
        self.model(torch.randn(3, 2)).sum().backward()
        self.optimizer.step()
        self.branches = Branches(self.model, {"a": "0"})
        self.balancer = Rebalancer(self.branches, ReGrad())
        self.bank, self.agm, self.summary = PrototypeBank(2, 3, decay=0.5), AGM(2), ProbabilitySummary()
        self.feature = torch.ones(2, requires_grad=True) * 2
        self.settings = {"names": ["a"], "deep": ({"x": 1},)}
        self.generator = torch.Generator()
        self.array = np.zeros(2)
        self.bare = object()

        def count(by: list[int] = [1]) -> list[int]:  # noqa: B006 - a default that can change is meant
            return [*by, *self.settings["names"]]

        self.function = count


def weight(world: World) -> Tensor:
    return world.model[0].weight


def in_place(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.view(-1)[0] += 1


def tie(world: World) -> None:
    """Equal values as before, but the same tensor."""
    world.twin.load_state_dict(world.model[0].state_dict())
    before = state_hash(world)
    world.twin.weight = weight(world)
    assert state_hash(world) != before


CHANGES: dict[str, Callable[[World], Any]] = {
    "a parameter": lambda w: in_place(weight(w)),
    "its sign of zero": lambda w: w.settings.update(zero=torch.tensor(-0.0)),
    "a buffer": lambda w: in_place(w.model[1].running_mean),
    "a counter": lambda w: w.model[1].num_batches_tracked.add_(1),
    "a gradient": lambda w: weight(w).grad.mul_(2),
    "no gradient": lambda w: setattr(weight(w), "grad", None),
    "frozen": lambda w: weight(w).requires_grad_(False),
    "cast": lambda w: w.twin.double(),
    "moved": lambda w: w.twin.to("meta"),
    "reshaped": lambda w: w.settings.update(t=torch.zeros(2, 1)),
    "tied": tie,
    "training mode": lambda w: w.model[2].eval(),
    "another child": lambda w: w.model.append(nn.ReLU()),
    "a child's attribute": lambda w: setattr(w.model[2], "p", 0.1),
    "a hook on a module": lambda w: w.model[0].register_forward_hook(lambda *_: None),
    "a hook before a module": lambda w: w.model[0].register_forward_pre_hook(lambda *_: None),
    "a hook on its state": lambda w: w.model.register_state_dict_post_hook(lambda *_: None),
    "a hook on a parameter": lambda w: weight(w).register_hook(lambda g: g),
    "a hook on a feature": lambda w: w.feature.register_hook(lambda g: g),
    "a hook on what accumulates": lambda w: weight(w).register_post_accumulate_grad_hook(lambda p: None),
    "a hook on an optimizer": lambda w: w.optimizer.register_step_pre_hook(lambda *_: None),
    "a learning rate": lambda w: w.optimizer.param_groups[0].update(lr=0.5),
    "a moment": lambda w: w.optimizer.state[weight(w)]["exp_avg"].zero_(),
    "a state less": lambda w: w.optimizer.state.pop(weight(w)),
    "rates that wait": lambda w: scale_updates(w.optimizer, {"a": 0.5}),
    "a capture that is open": lambda w: [block := w.branches.capture(), block.__enter__()],
    "a hook of a Rebalancer": lambda w: w.balancer.register_step_hook(print),
    "an option of a Rebalancer": lambda w: setattr(w.balancer, "weight", 2.0),
    "weights that are held": lambda w: setattr(w.balancer._held, "age", 1),
    "a bank": lambda w: w.bank.accumulate(torch.ones(1, 3), torch.tensor([0])),
    "a running mean": lambda w: w.agm(dict.fromkeys("xy", torch.zeros(1, 2)), torch.tensor([0])),
    "a summary": lambda w: w.summary.update(torch.full((1, 2), 0.5)),
    "deep in a list": lambda w: w.settings["names"].append("b"),
    "deep in a tuple": lambda w: w.settings["deep"][0].update(x=True),
    "a generator": lambda w: torch.rand(1, generator=w.generator),
    "an array": lambda w: w.array.fill(1),
    "another object": lambda w: setattr(w, "bare", object()),
    "what a function closes over": lambda w: w.function.__closure__[0].cell_contents.settings.clear(),
    "a function's default": lambda w: w.function.__defaults__[0].append(2),
    "torch's stream": lambda w: torch.rand(1),
    "numpy's stream": lambda w: np.random.rand(),  # noqa: NPY002
    "python's stream": lambda w: random.random(),
    "grad mode": lambda w: torch.set_grad_enabled(False),
    "the default dtype": lambda w: torch.set_default_dtype(torch.float64),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_changes_the_hash(change: Callable[[World], Any]) -> None:
    world = World()
    world.settings |= {"zero": torch.tensor(0.0), "t": torch.zeros(2)}
    before = state_hash(world)
    try:
        kept = change(world)
        assert state_hash(world) != before, kept
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)


def test_without_a_change_it_stays() -> None:
    world = World()
    before = state_hash(world)
    world.model.eval()(torch.ones(1, 2))
    world.model.train()
    copy.deepcopy(world.model).state_dict()
    with pytest.raises(RuntimeError), world.branches.capture():
        pass
    dict(world.branches)
    assert state_hash(world) == before


def test_cycles_end() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    before = state_hash(ring)
    assert state_hash(ring) == before
    ring[0] = 2
    assert state_hash(ring) != before
