"""Who is trained on and who is tested on: the protocols of multimodal face anti-spoofing.

- P1, leave one data set out: train on three, test on the fourth.
- P2, P1 with depth, infrared or both missing in the test.
- P3, limited sources: train on two, test on the other two.
- WMCA, leave one attack out: train on all kinds but one, test on live faces and that kind.
- flexible (flexible-modal): train on CASIA-SURF and CeFA, test on their test lists and on ALL lists of WMCA, with
  colour alone, colour and depth, colour and infrared, all three.

The published WMCA and flexible-modal lists have a file for each class of attack (print 600 rows, replay 1044, fake head
366, flexible mask 1137, glasses 225, paper mask 213, rigid mask 411). None is needed: the kind of a row comes from its
path, and :func:`gather` takes the classes apart. A flexible mask is called "silicone mask" here.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from .samples import KINDS, SPLITS, Samples, concatenate

PROTOCOLS = ("P1", "P2", "P3", "WMCA", "flexible")
LEFT_OUT = ("print", "replay", "fake head", "silicone mask", "glasses", "paper mask", "rigid mask")
_ALSO = {"print": ("bent print",)}  # the lists of WMCA know one kind of print


class Cell(NamedTuple):
    """One cell of a result table: sources, targets, and what is taken away."""

    protocol: str
    sources: tuple[str, ...]  # domains of training and development
    targets: tuple[str, ...]  # domains of the test
    missing: tuple[str, ...] = ()  # modalities that the test does not have; `data.hide` takes them away
    left_out: str = ""  # the kind of attack that training and development do not show, and the only one of the test

    @property
    def name(self) -> str:
        """As papers write it: "CPS→W"."""
        return f"{''.join(self.sources)}→{''.join(self.targets)}"


class AbsentKind(ValueError):
    """The test holds no attack of the kind that a cell leaves out of training: the cell says nothing, go on."""


def cells(protocol: str) -> tuple[Cell, ...]:
    """The cells of a protocol, in the order of the published tables."""
    if protocol == "P1":
        return tuple(Cell("P1", tuple(sources), (target,)) for sources, target in _LEAVE_ONE_OUT)
    if protocol == "P2":
        gone = (("depth",), ("infrared",), ("depth", "infrared"))
        return tuple(Cell("P2", tuple(sources), (target,), m) for sources, target in _LEAVE_ONE_OUT for m in gone)
    if protocol == "P3":
        return Cell("P3", ("C", "W"), ("P", "S")), Cell("P3", ("P", "S"), ("C", "W"))
    if protocol == "WMCA":
        return tuple(Cell("WMCA", ("W",), ("W",), left_out=kind) for kind in LEFT_OUT)
    if protocol == "flexible":
        gone = (("depth", "infrared"), ("infrared",), ("depth",), ())
        return tuple(Cell("flexible", ("S", "C"), targets, m) for targets in (("S", "C"), ("W",)) for m in gone)
    raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, found {protocol!r}")


_LEAVE_ONE_OUT = (("CPS", "W"), ("CPW", "S"), ("CSW", "P"), ("PSW", "C"))


def needed(cell: Cell) -> tuple[tuple[tuple[str, str], ...], ...]:
    """The (domain, split) pairs of a cell: those of training, of development and of the test."""
    everything = cell.protocol == "flexible"  # of a data set that training does not see
    test = [(d, s) for d in cell.targets for s in SPLITS if s == "test" or (everything and d not in cell.sources)]
    return tuple((d, "train") for d in cell.sources), tuple((d, "dev") for d in cell.sources), tuple(test)


def gather(cell: Cell, get: Callable[[str, str], Samples]) -> tuple[Samples, Samples, Samples]:
    """Training, development and test samples of a cell; `get(domain, split)` supplies the parts.

    Modalities that the cell calls missing are still there. A kind left out that the test does not hold raises
    :class:`AbsentKind`, before anything else than the test is asked for: a study prints its message and goes on.
    """
    pairs = needed(cell)
    test = _together(pairs[2], get)
    if not cell.left_out:
        return _together(pairs[0], get), _together(pairs[1], get), test
    codes = torch.tensor([KINDS.index(kind) for kind in (cell.left_out, *_ALSO.get(cell.left_out, ()))])
    unseen = torch.isin(test.kind, codes)
    if not unseen.any():
        found = ", ".join(kind for kind in KINDS[1:] if kind in test.kind_names) or "no attack"
        place = f"in the test of {''.join(cell.targets)}"
        raise AbsentKind(f"left_out: expected attacks of kind {cell.left_out!r} {place}, found {found}")
    train, dev = (_together(part, get) for part in pairs[:2])
    train, dev = (part.select(~torch.isin(part.kind, codes)) for part in (train, dev))
    return train, dev, test.select(test.live | unseen)


def _together(pairs: Sequence[tuple[str, str]], get: Callable[[str, str], Samples]) -> Samples:
    return concatenate([get(domain, split) for domain, split in pairs])
