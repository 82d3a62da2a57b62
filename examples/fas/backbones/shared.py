"""One ViT, trained by others, for all modalities: frozen except its last block and its final norm.

Those two train because they do in MMDG's released code (which trains the class tokens and positions as well; its paper
says adapters alone). The frozen part also stays in evaluation mode, whatever :meth:`Shared.train` is told, so that it
is always the same function; adapters beside it and the last block follow the mode.

Images of any size become those of the ViT (bilinear, antialiased), one channel is repeated three times. They come as
(x − 127.5)/128, which is what Google's and timm's augreg ViTs were trained on; the statistics that others expect are
not restored.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from balancekit import Parallel, Tap
from fas.data import three_channels


class ViT(NamedTuple):
    """The parts of a ViT, whichever library it comes from."""

    embed: nn.Module  # from images "b 3 h w" to tokens "b 1+n d": class token first, positions included
    blocks: nn.Module  # iterable; each has `mlp`, and its attention under the name `attention`
    norm: nn.Module
    attention: str
    size: tuple[int, int]  # height and width of its images, pixels
    grid: tuple[int, int]  # height and width, patches
    width: int


class Shared(nn.Module):
    """What the two arrangements share; `make` builds the ViT anew, `channels` says {modality: 1 or 3}."""

    def __init__(self, make: Callable[[], ViT], channels: Mapping[str, int]) -> None:
        super().__init__()
        for m, count in channels.items():
            if count not in (1, 3):
                raise ValueError(f"channels: expected 1 or 3 of {m}, which a ViT reads as colour, found {count}")
        vit = make()
        self.embed, self.blocks, self.norm = vit.embed, nn.ModuleList(vit.blocks), vit.norm
        self.attention, self.size, self.grid, self.width = vit.attention, vit.size, vit.grid, vit.width
        self.modalities, self.depth = tuple(channels), len(self.blocks)
        frozen = (self.embed, *self.blocks[:-1])
        self._frozen = tuple(module for part in frozen for module in part.modules())  # before anything stands beside
        self.requires_grad_(False)
        for part in (self.blocks[-1], self.norm):
            part.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> "Shared":
        """Set the mode of all that is not frozen."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def beside_mlp(self, block: int, side: nn.Module) -> None:
        """Add ``side(x³)`` to the MLP's output."""
        self._beside(block, "mlp", side)

    def beside_attention(self, block: int, side: nn.Module) -> None:
        """Add ``side(LN x¹)`` to the attention's output."""
        self._beside(block, self.attention, side)

    def _beside(self, block: int, part: str, side: nn.Module) -> None:
        setattr(self.blocks[block], part, Parallel(getattr(self.blocks[block], part), side))
        side.train(self.training)  # not the mode of what it stands beside, which is frozen

    def resize(self, image: Tensor) -> Tensor:
        """An image "b c h w" in the size of the ViT."""
        return F.interpolate(image, self.size, mode="bilinear", antialias=True)

    def tokens(self, images: Tensor) -> Tensor:
        """Class token and patches "b 1+n d" of images "b c h w" in the size of the ViT."""
        return self.embed(three_channels(images))

    def all_tokens(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The same "(m b) 1+n d" of all modalities."""
        return self.embed(torch.cat([three_channels(self.resize(inputs[m])) for m in self.modalities]))

    def encode(self, tokens: Tensor) -> Tensor:
        """Through all blocks and the norm; of each the same shape "b n d"."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class SharedStreams(Shared):
    """Each modality alone through the same ViT, all as one batch "(m b) n d": class tokens {modality: "b d"}."""

    def taps(self, block: int, read: Callable[[Tensor], Tensor]) -> dict[str, Tap]:
        """Listen to what the attention of a block adds to each modality, "b n d"."""
        attention, count = getattr(self.blocks[block], self.attention), len(self.modalities)
        return {m: Tap(attention, partial(of_tokens, read, k, count)) for k, m in enumerate(self.modalities)}

    def own(self, modality: str) -> list[nn.Module | nn.Parameter]:
        """Nothing: every weight serves all."""
        return []

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Class tokens of normalised images {modality: "b c h w"}."""
        class_tokens = self.encode(self.all_tokens(inputs))[:, 0]
        return dict(zip(self.modalities, class_tokens.chunk(len(self.modalities)), strict=True))


class SharedSequence(Shared):
    """The patches of all modalities in one sequence behind one class token: "b d"."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The class token of normalised images {modality: "b c h w"}."""
        tokens = self.all_tokens(inputs)
        patches = rearrange(tokens[:, 1:], "(m b) n d -> b (m n) d", m=len(self.modalities))
        class_token = tokens[: len(patches), :1]  # before the blocks it is the same in all
        return self.encode(torch.cat([class_token, patches], 1))[:, 0]


def of_tokens(read: Callable[[Tensor], Tensor], k: int, count: int, output: Any) -> Tensor:
    """Read the tokens, "b n d", of modality `k` of `count` from an attention that may also hand out its weights."""
    tokens = output[0] if isinstance(output, tuple) else output
    return read(tokens.chunk(count)[k])
