"""Weights that are held over several steps."""

from collections.abc import Mapping
from typing import Any

import torch

from balancekit._checks import expect, expect_count
from balancekit.surgery._weigh import Weighed


class Held:
    """The weights of the branches, measured at every k-th backward and used in those between."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.weighed: Weighed | None = None
        self.present: tuple[int, ...] = ()
        self.age = 0  # backwards that used these weights

    def valid(self, present: tuple[int, ...], branches: set[int]) -> Weighed | None:
        """The held weights, unless they are too old, or were measured for other modalities or branches."""
        held = self.weighed
        fits = held is not None and self.age < self.every and present == self.present and branches <= set(held.owner)
        return held if fits else None

    def renew(self, weighed: Weighed, present: tuple[int, ...]) -> None:
        """Hold these weights, 1 where they are not finite: a gradient scaler skips this step, but not the next."""
        finite = weighed.weights.isfinite().all(-1, keepdim=True)
        self.weighed = weighed._replace(weights=torch.where(finite, weighed.weights, 1))
        self.present, self.age = present, 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        held = None if self.weighed is None else self.weighed._asdict()
        return {"weighed": held, "present": self.present, "age": self.age}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        expect(isinstance(state, Mapping), "state", "a state_dict() of a Rebalancer", state, error=TypeError)
        keys = ["weighed", "present", "age"]
        expect(set(state) == set(keys), "state", f"the keys {keys}", list(state))
        expect_count("state['age']", state["age"], low=0)
        held = state["weighed"]
        self.weighed = None if held is None else Weighed(**held)
        self.present, self.age = state["present"], state["age"]
