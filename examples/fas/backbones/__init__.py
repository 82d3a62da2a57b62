"""What turns images into features: ``small`` from scratch, or ``shared``, one ViT of timm or transformers for all.

Both come in two arrangements. :class:`Streams`: each modality passes alone, and what they say to each other goes
through adapters. :class:`Sequence`: the patches of all form one sequence, and attention sees all of them. A feature is
the normalised class token behind the last block (shared), or the mean of all its normalised tokens (small).
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from balancekit import Tap

from .shared import SharedSequence, SharedStreams
from .small import SmallSequence, SmallStreams
from .weights import vit_of


class Trunk(Protocol):
    """A backbone as systems see it; an nn.Module whose `forward` takes normalised images {modality: "b c h w"}."""

    modalities: tuple[str, ...]
    width: int  # d of a token
    grid: tuple[int, int]  # the patches of one modality, which follow a class token
    depth: int  # number of blocks

    def beside_mlp(self, block: int, side: nn.Module) -> None:
        """Add ``side(x³)`` to the output of a block's MLP; x³ are the normalised tokens that the MLP reads."""
        ...


class Streams(Trunk, Protocol):
    """Each modality alone. What stands beside is given all of them, in either form that a CrossModal takes."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features {modality: "b d"}."""
        ...

    def taps(self, block: int, read: Callable[[Tensor], Tensor]) -> dict[str, Tap]:
        """Listen to what the attention of a block adds to each modality, "b n d"."""
        ...

    def own(self, modality: str) -> list[nn.Module | nn.Parameter]:
        """What serves this modality alone; nothing where all weights are shared."""
        ...


class Sequence(Trunk, Protocol):
    """All modalities in one sequence "b (1 + m n) d"."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """A feature "b d"."""
        ...

    def beside_attention(self, block: int, side: nn.Module) -> None:
        """Add ``side(x)`` to the output of a block's attention."""
        ...


class Backbone(NamedTuple):
    """How to make the two arrangements, from {modality: channels}."""

    streams: Callable[[Mapping[str, int]], Streams]
    sequence: Callable[[Mapping[str, int]], Sequence]


SMALL = Backbone(SmallStreams, SmallSequence)


def backbone(name: str, weights: Path | str | None = None) -> Backbone:
    """The backbone of a name: "small", "timm:MODEL" or "transformers:FOLDER"; `weights` as in :func:`~.weights.vit_of`.

    Each trunk that it makes has a ViT of its own, read from the file anew or, without a file, drawn anew.
    """
    if name == "small":
        if weights is not None:
            raise ValueError(f'weights: expected none, for "small" is trained from scratch, found {weights}')
        return SMALL
    make = vit_of(name, weights)
    return Backbone(partial(SharedStreams, make), partial(SharedSequence, make))


__all__ = [
    "SMALL",
    "Backbone",
    "Sequence",
    "SharedSequence",
    "SharedStreams",
    "SmallSequence",
    "SmallStreams",
    "Streams",
    "Trunk",
    "backbone",
]
