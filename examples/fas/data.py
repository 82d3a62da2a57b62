"""From samples to batches of a network: normalisation, missing modalities, augmentation, balance.

A modality that is missing is BLACK BEFORE normalisation, (0 − 127.5)/128 = −0.996, in training and in testing alike:
:func:`hide` is the only code that takes one away. (A released code base trains with this value and tests with 0.0, a
mid-grey that its network never saw.)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from .samples import DOMAINS, MODALITIES, Samples
from .sets.descriptors import describe


class Batch(NamedTuple):
    """What a training step needs; the labels of :class:`~.samples.Samples`, and images as a network reads them."""

    inputs: dict[str, Tensor]  # float32: rgb "b 3 h w", depth and infrared "b 1 h w", in [−0.996, 0.996]
    live: Tensor  # bool "b"
    kind: Tensor  # int64 "b"
    domain: Tensor  # int64 "b"
    rows: Tensor  # int64 "b", the place in the data set
    chance: Tensor  # float32 "b m", uniform in [0, 1) in training, for what drops modalities; 1 in evaluation

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Batch":
        """`fn` of every tensor."""
        return Batch({name: fn(image) for name, image in self.inputs.items()}, *(fn(x) for x in self[1:]))


def normalise(image: Tensor) -> Tensor:
    """(x − 127.5)/128 of grey levels 0 … 255."""
    return (image.float() - 127.5) / 128


MISSING = normalise(torch.tensor(0.0)).item()  # the value of every pixel of a missing modality


def hide(inputs: dict[str, Tensor], names: Iterable[str], rows: Tensor | None = None) -> dict[str, Tensor]:
    """The same normalised inputs without the modalities `names`, for all samples or for `rows` (bool "b") only.

    Training with modality dropout and testing with a missing sensor both call this.
    """
    names = set(names)
    unknown = names - set(inputs)
    if unknown:
        raise ValueError(f"names: expected some of {', '.join(inputs)}, found {', '.join(sorted(unknown))}")
    out = dict(inputs)
    for name in names:
        x = inputs[name]
        gone = torch.full_like(x, MISSING)
        out[name] = gone if rows is None else torch.where(rows.view(-1, 1, 1, 1), gone, x)
    return out


def three_channels(image: Tensor) -> Tensor:
    """A single channel, three times, for a backbone that wants colour; after augmentation, so that grey stays grey."""
    return image.expand(-1, 3, -1, -1)


def augment(images: dict[str, Tensor], generator: torch.Generator, *, jitter: float = 0.15) -> dict[str, Tensor]:
    """Mirror half of the samples, all modalities of one alike, and change each modality's brightness and contrast.

    Grey levels in, grey levels out. The jitter is one factor and one offset an image, never one a channel: channels of
    a grey image would part, and the colours of RGB would turn. A depth of 0, a hole, stays 0.
    """
    count = len(next(iter(images.values())))

    def draw() -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator)

    mirrored = draw() < 0.5
    out = {}
    for name, image in images.items():
        x = torch.where(mirrored, image.flip(-1), image).float()
        factor, offset = 1 + jitter * (2 * draw() - 1), 255 * jitter / 2 * (2 * draw() - 1)
        brighter = (x * factor + offset).clamp(0, 255)
        out[name] = torch.where(x == 0, x, brighter) if name == "depth" else brighter
    return out


class Steps(Dataset[Batch]):
    """A whole training, step by step: item k is the batch of step k, augmented.

    What a step shows depends on `seed` and k alone. So a loader may fetch steps in any number of processes, a training
    may go on at any step, and of several processes that train together each can take its share of the same batch.

    Args:
        samples: to draw from, balanced (:class:`BalancedBatches`).
        epochs: how often to go through them.
        size: of a batch, over all processes.
        seed: of order and augmentation.
        infrared: what the infrared input is made of, names of ``sets.descriptors``.
        share: (rank, number of processes).
    """

    def __init__(
        self,
        samples: Samples,
        *,
        epochs: int,
        size: int,
        seed: int,
        infrared: Sequence[str] = ("grey",),
        share: tuple[int, int] = (0, 1),
    ):
        if size % share[1]:
            raise ValueError(f"size: expected a multiple of the {share[1]} processes, found {size}")
        order = torch.Generator().manual_seed(seed)
        batches = BalancedBatches(samples.domain, samples.live, size=size, generator=order)
        self.plan = [rows for _ in range(epochs) for rows in batches]
        self.samples, self.seed, self.infrared, self.share = samples, seed, infrared, share

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> Batch:
        rank, processes = self.share
        numbers = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        data = FaceData(self.samples, generator=numbers, infrared=self.infrared)
        return data[self.plan[step]].map(lambda x: x[rank::processes])


class FaceData(Dataset[Batch]):
    """Samples in memory, a batch at a time: index with a list of integers.

    With a `generator` each batch is augmented; then the infrared image is described by `infrared`. A training takes
    :class:`Steps`; without one, ``for rows in BalancedBatches(…): batch = data[rows]``.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        generator: torch.Generator | None = None,
        infrared: Sequence[str] = ("grey",),
    ):
        self.samples, self.generator, self.infrared = samples, generator, infrared

    def __len__(self) -> int:
        return len(self.samples.live)

    def __getitem__(self, rows: Sequence[int] | Tensor) -> Batch:
        index = torch.as_tensor(rows)
        if index.ndim != 1:
            raise ValueError(f"rows: expected a list of integers, found {rows!r}")
        chosen = self.samples.select(index)
        images = {name: getattr(chosen, name) for name in MODALITIES}
        chance = torch.ones(len(index), len(MODALITIES))
        if self.generator is not None:
            images = augment(images, self.generator)
            chance = torch.rand(chance.shape, generator=self.generator)
        images["infrared"] = describe(images["infrared"], self.infrared)
        inputs = {name: normalise(image) for name, image in images.items()}
        return Batch(inputs, chosen.live, chosen.kind, chosen.domain, index, chance)

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, for evaluation."""
        for start in range(0, len(self), size):
            yield self[range(start, min(start + size, len(self)))]


class BalancedBatches(Sampler[list[int]]):
    """Index lists in which every (domain, live) cell is equally frequent, whatever the ratios of the data.

    A cell is gone through in random order again and again; what does not divide evenly goes to cells drawn anew for
    each batch. `generator` is the only source of randomness and the only state.
    """

    def __init__(self, domain: Tensor, live: Tensor, *, size: int, generator: torch.Generator):
        codes = domain * 2 + live
        self.cells = [torch.nonzero(codes == code)[:, 0] for code in codes.unique().tolist()]
        absent = [
            f"{'live' if code % 2 else 'attack'} of domain {DOMAINS[code // 2]}"
            for d in domain.unique().tolist()
            for code in (2 * d, 2 * d + 1)
            if not (codes == code).any()
        ]
        if absent or not self.cells:
            raise ValueError(f"live: expected both classes in every domain, found no {', '.join(absent) or 'sample'}")
        if size < len(self.cells):
            raise ValueError(f"size: expected at least {len(self.cells)}, one sample a cell, found {size}")
        self.size, self.generator, self.length = size, generator, max(1, len(live) // size)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[int]]:
        queues = [self._endless(cell) for cell in self.cells]
        share, rest = divmod(self.size, len(self.cells))
        for _ in range(self.length):
            extra = set(torch.randperm(len(self.cells), generator=self.generator)[:rest].tolist())
            yield [next(queue) for k, queue in enumerate(queues) for _ in range(share + (k in extra))]

    def _endless(self, cell: Tensor) -> Iterator[int]:
        while True:
            yield from cell[torch.randperm(len(cell), generator=self.generator)].tolist()
