"""Gradients and facts to try a rule on."""

from typing import NamedTuple

import torch
from torch import Tensor

from balancekit._typing import Float
from balancekit.surgery import Rule, Step


class Case(NamedTuple):
    """Gradients on some granules, row 0 the total's, and a step's facts."""

    rows: Float[Tensor, "g r d"]
    step: Step

    @property
    def gram(self) -> Float[Tensor, "g r r"]:
        """Their inner products."""
        return self.rows @ self.rows.mT

    def on(self, index: Tensor) -> "Case":
        """These granules alone."""
        return Case(self.rows[index], self.step._replace(owner=self.step.owner[index], units=self.step.units[index]))

    def to(self, dtype: torch.dtype) -> "Case":
        """The same in another dtype."""
        fields = (field.to(dtype) if field.is_floating_point() else field for field in self.step)
        return Case(self.rows.to(dtype), Step(*fields))


def draw(rule: Rule, m: int, number: int, seed: int, device: torch.device | str) -> Case:
    """Gradients of m modalities on 2 m granules, of a kind that changes with `number`."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + 101 * number + m)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator)

    rows = integers(-2, 2, 2 * m, 1 + m, 4).double()
    present = integers(0, 4, m) > 0
    kind = number % 4
    if kind == 1:  # equal and opposite gradients
        rows = rows[:, :1] * integers(-1, 1, 2 * m, 1 + m, 1)
    elif kind == 2:  # gradients that do not reach a granule
        rows = rows * integers(0, 1, 2 * m, 1 + m, 1)
    elif kind == 3:  # nothing special; all modalities are there
        rows, present = torch.randn(rows.shape, generator=generator, dtype=torch.float64), torch.ones_like(present)
    rows[:, 1:] *= present.unsqueeze(-1)
    rows[:, :1] *= rule.uses_total
    losses = integers(0, 2, m).double() * present
    step = Step(
        losses=losses,
        confidence=torch.where(present, integers(1, 4, m).double() / 4, 1),
        speed=torch.where(present, -losses, -torch.inf),
        present=present,
        owner=integers(0, m - 1, 2 * m),
        units=2.0 ** integers(-2, 2, 2 * m).double(),
    )
    return Case(rows.to(device), Step(*(field.to(device) for field in step)))
