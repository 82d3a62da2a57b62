"""Generated faces, a small network for them, and the tokens that uncertainty is read from.

The network is the worked example's baseline: per modality two strided convolutions to 8×8 tokens, one transformer
block, a head on the mean of the tokens. It has dropout behind attention and in the MLP, so that Monte-Carlo dropout
samples what was trained.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from fas.backbones import SMALL
from fas.data import BalancedBatches, FaceData
from fas.samples import DOMAINS, MODALITIES, TOKENS, Samples, concatenate
from fas.standin import cached_split
from fas.systems.base import Fusion
from torch import Tensor, nn

RATE = 0.1  # of dropout in the block, in training
PLACES = TOKENS**2
CHANNELS = {"rgb": 3, "depth": 1, "infrared": 1}


class Faces(NamedTuple):
    """Three source domains to train and calibrate on, and a held-out one."""

    train: Samples
    dev: Samples
    test: Samples


class Tokens(NamedTuple):
    """What the modalities' encoders make of a set of images, {modality: "b n d"}; n goes through the 8×8 grid."""

    first: dict[str, Tensor]  # after the first convolution, mean and maximum over each token's 4×4 cells
    embedded: dict[str, Tensor]  # what enters the block, the class token first
    attention: dict[str, Tensor]  # what the attention adds, where the paper measures
    block: dict[str, Tensor]  # after it was added
    failure: Tensor  # uint8 "b m n", the truth

    def clean(self) -> Tensor:
        """Tokens at which no modality failed, bool "b n"."""
        return (self.failure == 0).all(1)

    def select(self, rows: slice) -> "Tokens":
        """Some of the samples."""
        return Tokens(*({m: x[rows] for m, x in layer.items()} for layer in self[:-1]), self.failure[rows])


def load(folder: Path, target: str, seed: int, counts: tuple[int, int, int]) -> Faces:
    """`counts` training and development samples of each source, and test samples of the target."""
    train, dev, test = counts
    sources = [domain for domain in DOMAINS if domain != target]
    return Faces(
        concatenate([cached_split(folder, domain, "train", train, seed=seed) for domain in sources]),
        concatenate([cached_split(folder, domain, "dev", dev, seed=seed) for domain in sources]),
        cached_split(folder, target, "test", test, seed=seed),
    )


def network(samples: Samples, seed: int, epochs: int) -> Fusion:
    """Trained with cross-entropy on live against attack."""
    torch.manual_seed(seed)
    model = Fusion(SMALL.streams(CHANNELS))
    for encoder in model.trunk.encoders.values():
        (block,) = encoder.blocks
        block.attention = nn.Sequential(block.attention, nn.Dropout(RATE))
        block.mlp.insert(2, nn.Dropout(RATE))
    shuffle = torch.Generator().manual_seed(seed)
    data = FaceData(samples, generator=shuffle)
    batches = BalancedBatches(samples.domain, samples.live, size=32, generator=shuffle)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    for _ in range(epochs):
        for rows in batches:
            batch = data[rows]
            optimizer.zero_grad()
            F.cross_entropy(model(batch.inputs).logits, batch.live.long()).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def tokens(model: Fusion, samples: Samples) -> Tokens:
    """Run the network in evaluation mode, and listen."""
    layers: list[dict[str, list[Tensor]]] = [{m: [] for m in MODALITIES} for _ in range(4)]

    def into(layer: int, name: str, read: Callable[[Any, Any], Tensor]) -> Callable[..., None]:
        return lambda module, args, output: layers[layer][name].append(read(args, output))

    handles = []
    for m, encoder in model.trunk.encoders.items():
        (block,) = encoder.blocks
        handles += [
            encoder.stem.body[2].register_forward_hook(into(0, m, lambda _, output: _pooled(output))),
            block.attention.register_forward_hook(into(1, m, lambda args, _: args[0])),
            block.attention.register_forward_hook(into(2, m, lambda _, output: output[:, 1:])),
            block.norm.register_forward_hook(into(3, m, lambda args, _: args[0][:, 1:])),
        ]
    for batch in FaceData(samples).batches(250):
        model(batch.inputs)
    for handle in handles:
        handle.remove()
    joined = ({name: torch.cat(parts) for name, parts in layer.items()} for layer in layers)
    return Tokens(*joined, samples.failure.flatten(2))


def _pooled(image: Tensor) -> Tensor:
    cell = image.shape[-1] // TOKENS
    return torch.cat([F.avg_pool2d(image, cell), F.max_pool2d(image, cell)], 1).flatten(2).mT


def ring(x: Tensor) -> Tensor:
    """The eight neighbours of each token on the grid, "b n (d 8)"; beyond the border the nearest token again."""
    grid = x.mT.unflatten(2, (TOKENS, TOKENS))
    around = F.unfold(F.pad(grid, (1, 1, 1, 1), mode="replicate"), 3).unflatten(1, (x.shape[-1], 9))
    others = [k for k in range(9) if k != 4]
    return around[:, :, others].flatten(1, 2).mT


def places(x: Tensor) -> Tensor:
    """Where each token is, "b n n", one of n."""
    return torch.eye(PLACES).expand(len(x), -1, -1)
