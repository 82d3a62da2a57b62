"""The one record that generated and real faces share, and the names behind its codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .files import whole

MODALITIES = ("rgb", "depth", "infrared")
DOMAINS = ("S", "C", "W", "P")  # CASIA-SURF, CeFA, WMCA, PADISI-USC, or a stand-in with the same traits
SPLITS = ("train", "dev", "test")
KINDS = (  # what was held in front of the camera; a code is an index into this tuple
    "live",
    "print",
    "bent print",
    "cut eyes",
    "cut eyes nose",
    "cut eyes nose mouth",
    "replay",
    "rigid mask",
    "silicone mask",
    "paper mask",
    "glasses",
    "half mask",
    "fake head",
    "attack",  # a list that says only that it is one
)
FAILURES = ("none", "frame mismatch", "misalignment", "hole", "sun")  # what a sensor did; a code is an index
TOKENS = 8  # the grid on which corrupted regions are marked


class Samples(NamedTuple):
    """A batch of faces; `live` is True for a genuine face, whatever sign the source used."""

    rgb: Tensor  # uint8 "b 3 h w"
    depth: Tensor  # uint8 "b 1 h w", closer is brighter, 0 is a hole
    infrared: Tensor  # uint8 "b 1 h w"
    live: Tensor  # bool "b"
    kind: Tensor  # int64 "b", an index into KINDS; 0 exactly where live
    domain: Tensor  # int64 "b", an index into DOMAINS
    identity: Tensor  # int64 "b"; -1 where the source does not say
    failure: Tensor  # uint8 "b m 8 8", an index into FAILURES; 0 throughout where the source does not say

    def select(self, index: Tensor | Sequence[int]) -> "Samples":
        """The samples at `index`, an integer or boolean index over the batch."""
        return Samples(*(field[index] for field in self))

    @property
    def corrupted(self) -> Tensor:
        """Where a sensor failed, bool "b m 8 8", in the order of MODALITIES."""
        return self.failure > 0

    @property
    def kind_names(self) -> list[str]:
        """The kind of each sample, in words."""
        return [KINDS[code] for code in self.kind.tolist()]

    def save(self, path: Path) -> None:
        """Write an .npz file; a reader never sees a half-written one, whoever else writes it."""
        arrays = {name: field.numpy() for name, field in self._asdict().items()}
        with whole(path) as partial:
            np.savez(partial, **arrays)  # pyright: ignore[reportArgumentType]


def load(path: Path) -> Samples:
    """Read what :meth:`Samples.save` wrote."""
    with np.load(path) as arrays:
        return Samples(*(torch.from_numpy(arrays[name]) for name in Samples._fields))


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Several batches as one, in their order."""
    if not parts:
        raise ValueError("parts: expected at least one batch of samples, found none")
    return Samples(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
