"""Pre-training without labels: one modality, mostly hidden, has to tell what all of them show.

M²A²E, the modality-asymmetric masked autoencoder (Yu et al., arXiv 2302.05744, section 3.3 and Fig. 3), here after a
summary of it, without the paper's own numbers at hand. In each step

    m      one modality, drawn at random              hidden   a share `ratio` of its patches, drawn for each sample
    z      the encoder of m, on the other patches of m alone
    loss   Σ over all modalities k of the mean of (decoder_k(z) − pixels of k)²,
           for k = m over the hidden patches, for the others over all

Ours where that summary is silent: the ratio is MAE's 0.75; pixels are those that the network sees, (x − 127.5)/128,
and are not normalised patch by patch, which would blow up the noise of what is flat (masked background, a depth hole);
a decoder is one transformer block. Decoders are thrown away.
"""

from collections.abc import Callable, Mapping

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from .backbones import Backbone, SmallStreams, Trunk
from .backbones.shared import Shared
from .data import MISSING, FaceData
from .samples import Samples

SETTLE = 40  # batches of whole faces at the end: 0.9⁴⁰ = 1.5 % is left in batch norms of hidden patches


class Decoder(nn.Module):
    """From the encoded visible patches to the pixels of all patches of one modality."""

    def __init__(self, width: int, patches: int, pixels: int) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, patches, width))
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.out = nn.Linear(width, pixels)

    def forward(self, encoded: Tensor, hidden: Tensor) -> Tensor:
        """Pixels "b n p" from class token and visible patches "b 1+v d"; `hidden` says which are not there, "b n"."""
        whole = self.hidden.expand(*hidden.shape, -1).masked_scatter(~hidden[..., None], encoded[:, 1:])
        return self.out(self.block(torch.cat([encoded[:, :1], whole + self.position], 1))[:, 1:])


def pretrain(
    trunk: Trunk,
    samples: Samples,
    *,
    steps: int = 300,
    batch: int = 32,
    lr: float = 1e-3,
    ratio: float = 0.75,
    seed: int = 0,
) -> list[float]:
    """Train `trunk` in place, before anything stands beside its blocks; return the loss of each step.

    In a shared ViT only what is not frozen learns: its last block and its norm.

    Args:
        trunk: of either arrangement; a sequence is fed with one modality at a time.
        samples: their labels are not looked at.
        steps: optimiser steps of AdamW.
        batch: samples a step, no two alike.
        lr: its learning rate.
        ratio: the share of the patches that is hidden.
        seed: of the decoders' first weights and of everything drawn.
    """
    count = trunk.grid[0] * trunk.grid[1]
    if not 1 <= round(ratio * count) < count:
        raise ValueError(f"ratio: expected a share that hides some of the {count} patches and not all, found {ratio}")
    generator = torch.Generator().manual_seed(seed)
    data = FaceData(samples, generator=generator)
    shapes = {m: patches(trunk, image).shape[-1] for m, image in FaceData(samples)[[0]].inputs.items()}
    decoders = make_decoders(trunk, shapes, seed)
    trained = [p for p in (*trunk.parameters(), *decoders.parameters()) if p.requires_grad]
    device, optimizer = trained[0].device, torch.optim.AdamW(trained, lr=lr)
    was_training = trunk.training
    trunk.train()

    def draw() -> dict[str, Tensor]:
        inputs = data[torch.randperm(len(data), generator=generator)[:batch]].inputs
        return {m: image.to(device) for m, image in inputs.items()}

    losses = []
    for _ in range(steps):
        inputs = draw()
        m = trunk.modalities[torch.randint(len(trunk.modalities), (), generator=generator)]
        hidden = draw_hidden(len(inputs[m]), count, ratio, generator).to(device)
        loss = reconstruction_loss(trunk, decoders, m, inputs, hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    if any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules()):
        with torch.no_grad():
            for _ in range(SETTLE):
                trunk(draw())
    trunk.train(was_training)
    return [loss.item() for loss in losses]


def pretrained(backbone: Backbone, samples: Samples, *, steps: int, seed: int) -> Backbone:
    """The same backbone, each trunk of which is pre-trained on `samples` as it is made."""

    def after(make: Callable[[Mapping[str, int]], Trunk]) -> Callable[[Mapping[str, int]], Trunk]:
        def made(channels: Mapping[str, int]) -> Trunk:
            trunk = make(channels)
            pretrain(trunk, samples, steps=steps, seed=seed)
            return trunk

        return made

    return Backbone(after(backbone.streams), after(backbone.sequence))


def reconstruction_loss(
    trunk: Trunk, decoders: nn.ModuleDict, modality: str, inputs: dict[str, Tensor], hidden: Tensor
) -> Tensor:
    """The loss when `modality` is looked at without its `hidden` patches, bool "b n", as many in each sample."""
    encoded = encode(trunk, modality, inputs[modality], hidden)
    total = encoded.new_zeros(())
    for m, decoder in decoders.items():
        error = (decoder(encoded, hidden) - patches(trunk, inputs[m])).square().mean(-1)
        total = total + (error[hidden] if m == modality else error).mean()
    return total


def encode(trunk: Trunk, modality: str, image: Tensor, hidden: Tensor) -> Tensor:
    """Class token and visible patches "b 1+v d" of normalised images "b c h w" of one modality.

    Hidden patches are black before the stem, whose convolutions would otherwise look at them, and gone after it.
    """
    image = sized(trunk, image)
    height, width = (side // n for side, n in zip(image.shape[-2:], trunk.grid, strict=True))
    mask = repeat(hidden, "b (h w) -> b 1 (h p) (w q)", h=trunk.grid[0], p=height, q=width)
    image = image.masked_fill(mask, MISSING)

    def visible(class_token: Tensor, tokens: Tensor) -> Tensor:
        left = tokens[~hidden].unflatten(0, (len(tokens), -1))
        return torch.cat([class_token.expand(len(tokens), -1, -1), left], 1)

    if isinstance(trunk, Shared):
        tokens = trunk.tokens(image)
        return trunk.encode(visible(tokens[:, :1], tokens[:, 1:]))
    if isinstance(trunk, SmallStreams):
        own = trunk.encoders[modality]
        class_token, stem, blocks, norm = own.class_token, own.stem, own.blocks, own.norm
    else:
        class_token, stem, blocks, norm = trunk.class_token, trunk.stems[modality], trunk.blocks, trunk.norm
    x = visible(class_token, stem(image))
    for block in blocks:
        x = block(x)
    return norm(x)


def patches(trunk: Trunk, image: Tensor) -> Tensor:
    """The pixels of each patch, "b n p", of images "b c h w"."""
    h, w = trunk.grid
    return rearrange(sized(trunk, image), "b c (h p) (w q) -> b (h w) (c p q)", h=h, w=w)


def sized(trunk: Trunk, image: Tensor) -> Tensor:
    """An image in the size that the trunk cuts into patches."""
    return trunk.resize(image) if isinstance(trunk, Shared) else image


def draw_hidden(samples: int, count: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Which patches are hidden, bool "samples count"; equally many in each sample."""
    return torch.rand(samples, count, generator=generator).argsort(1) < round(ratio * count)


def make_decoders(trunk: Trunk, pixels: dict[str, int], seed: int) -> nn.ModuleDict:
    """One for each modality of the trunk, of `pixels` a patch; torch's own generator stays where it is."""
    count = trunk.grid[0] * trunk.grid[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        decoders = nn.ModuleDict({m: Decoder(trunk.width, count, pixels[m]) for m in trunk.modalities})
    return decoders.to(next(trunk.parameters()).device)
