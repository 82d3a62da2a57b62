"""What a study has measured: one :class:`Result` a system, cell, seed and epoch."""

from typing import NamedTuple

from fas.protocols import Cell

from .metrics import Scored


class Result(NamedTuple):
    """The scores of one trained system."""

    system: str
    cell: Cell
    seed: int
    epoch: str  # "last", or "best" on the development set
    dev: Scored
    test: Scored
