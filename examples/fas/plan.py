"""What a study is to do: trainings, the long ones first.

A *unit* is one training: a system, the sources, a seed. Its folder holds the checkpoint and the scores of every cell
that has these sources, so that P2 costs no training that P1 has done, and that what is finished is not done again.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from .protocols import Cell
from .samples import Samples
from .systems import ABLATION, ALONE
from .training import Options

COST = {  # in trainings of the ViT; 1 unless given
    **dict.fromkeys(ALONE, 0.45),
    **dict.fromkeys(ABLATION, 3.6),
    "MMDG": 3.6,
    "MMDG repaired": 3.8,
    "ViT + AMA": 1.25,
    "without U-Adapter": 2,
    "without SSP": 1.5,
}


class Source(Protocol):
    """Where samples come from: :mod:`fas.sources`."""

    def identity(self) -> str:
        """What decides the samples."""
        ...

    def prepare(self, seeds: Iterable[int], pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Make or check all (domain, split); yields lines to print."""
        ...

    def get(self, seed: int, domain: str, split: str) -> Samples:
        """One split of one domain."""
        ...


class Plan(NamedTuple):
    """What to do."""

    cells: tuple[Cell, ...]
    systems: tuple[str, ...]
    seeds: tuple[int, ...]
    source: Source
    out: Path
    options: Options
    backbone: str = "small"
    weights: Path | None = None
    resume: bool = False
    every: int = 0  # steps between checkpoints within an epoch


class Unit(NamedTuple):
    """One training, and the cells to score."""

    system: str
    seed: int
    cells: tuple[Cell, ...]  # with the same sources

    def folder(self, out: Path) -> Path:
        """Where it leaves its files."""
        cell = self.cells[0]
        trained_on = "".join(cell.sources) + (f" without {cell.left_out}" if cell.left_out else "")
        return out / trained_on / f"seed-{self.seed}" / self.system

    def scores(self, cell: Cell, out: Path) -> Path:
        """The file of its scores on a cell."""
        name = f"{cell.protocol} {cell.name} {' '.join(cell.missing)}".strip()
        return self.folder(out) / f"{name}.npz"

    def cost(self, epochs: int) -> float:
        """Of the training, in epochs of the plain baseline on three domains."""
        return epochs * COST.get(self.system, 1) * len(self.cells[0].sources) / 3


def units(plan: Plan) -> list[Unit]:
    """All trainings, the long ones first."""
    groups: dict[tuple, list[Cell]] = {}
    for cell in plan.cells:
        groups.setdefault((cell.sources, cell.left_out), []).append(cell)
    every = [Unit(s, seed, tuple(cells)) for seed in plan.seeds for cells in groups.values() for s in plan.systems]
    return sorted(every, key=lambda unit: -unit.cost(1))
