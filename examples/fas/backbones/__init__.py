"""What turns images into class tokens: ``small`` from scratch, or ``shared``, one ViT of timm or transformers for all.

Both come in two arrangements. *Streams*: each modality passes alone, all as one batch "(m b) n d", and what they say to
each other goes through adapters. *Sequence*: the patches of all form one sequence behind one class token, and attention
sees all of them. :class:`Trunk` is what systems ask of either.
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
    """A backbone as systems see it; an nn.Module whose `forward` takes normalised images {modality: "b c h w"}.

    It returns class tokens: "(m b) d" of streams, "b d" of a sequence.
    """

    modalities: tuple[str, ...]
    width: int  # d of a token
    grid: tuple[int, int]  # the patches of one modality
    depth: int  # number of blocks

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor: ...

    def tap(self, block: int, read: Callable[[Tensor], Tensor]) -> Tap:
        """Listen to what the attention of a block adds, "b n d"."""
        ...

    def beside_mlp(self, block: int, side: nn.Module) -> None:
        """Add ``side(x³)`` to the output of a block's MLP; x³ are the normalised tokens that the MLP reads."""
        ...

    def beside_attention(self, block: int, side: nn.Module) -> None:
        """The same for its attention."""
        ...

    def own(self, modality: str) -> list[nn.Module | nn.Parameter]:
        """Of streams: what serves this modality alone; nothing where all weights are shared."""
        ...


class Backbone(NamedTuple):
    """How to make the two arrangements, from {modality: channels}."""

    streams: Callable[[Mapping[str, int]], Trunk]
    sequence: Callable[[Mapping[str, int]], Trunk]


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
    "SharedSequence",
    "SharedStreams",
    "SmallSequence",
    "SmallStreams",
    "Trunk",
    "backbone",
]
