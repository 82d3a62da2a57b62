"""A bank of class prototypes: the mean feature of each class, exact or as a moving average.

MMDG (arXiv 2402.19298), Eq. 6, and PMR (arXiv 2211.07089), Eq. 6 and 12:

    mean_c      = Σ features of class c / number of them              over all that was accumulated, on all ranks
    prototype_c = mean_c                                              at first sight
                  decay · prototype_c + (1 − decay) · mean_c          afterwards, if any sample of c was accumulated
"""

import torch
from torch import Tensor

from balancekit._checks import expect_count, expect_device, expect_floating, expect_labels, expect_number, expect_shape
from balancekit._distributed import all_reduce_sum
from balancekit._statistics import Statistics
from balancekit._typing import Float, Int
from balancekit.prototypes._losses import prototype_logits


class PrototypeBank(Statistics):
    """The mean feature of each class, kept in buffers; calling it classifies by distance.

    ``update`` after each step makes a moving average. For exact means, ``accumulate`` over the data and ``commit``
    once, with ``decay=0`` to forget the old ones. In a process group ``commit`` sums over all ranks in one
    collective, so every rank has to call it and gets the prototypes of the whole batch.

    - A class without samples keeps its prototype: it does not decay.
    - A non-finite batch is skipped as a whole, without a look at the device from the host; others still count.
    - Updates put new tensors in place of the old: a tensor taken from ``bank.prototypes`` is a snapshot, and a
      backward through a loss that holds it stays valid.
    - Features are detached, and statistics stay float32 or wider when the model around them is cast to less.
    - ``DistributedDataParallel`` copies rank 0's buffers to all ranks before each forward. A bank inside the wrapped
      model is right if nothing is pending then (``update`` leaves nothing); for longer accumulation keep it outside.

    Args:
        num_classes: number of classes c.
        dim: width d of a feature.
        decay: weight of the **old** prototype, in [0, 1]. No default, as papers use both directions: MMDG's and PMR's
            code have 0.2 on the old prototype, where the "momentum" of others means 0.8 or more.

    Attributes:
        prototypes: buffer "c d", 0 for classes never seen.
        seen: bool buffer "c", whether a class was ever committed.
        sums: buffer "c d", sum of the features accumulated since the last commit.
        counts: int64 buffer "c", number of them.

    Example:
        >>> bank = PrototypeBank(num_classes=3, dim=2, decay=0.5)
        >>> bank.update(torch.tensor([[0.0, 0.0], [2.0, 2.0], [5.0, 6.0]]), torch.tensor([0, 0, 1]))
        >>> bank.prototypes
        tensor([[1., 1.],
                [5., 6.],
                [0., 0.]])
        >>> bank.update(torch.tensor([[3.0, 3.0]]), torch.tensor([0]))
        >>> bank.prototypes[0]
        tensor([2., 2.])
        >>> bank(torch.tensor([[5.0, 2.0]]))
        tensor([[-3., -4., -inf]])
    """

    prototypes: Tensor
    seen: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, dim: int, *, decay: float) -> None:
        expect_count("num_classes", num_classes)
        expect_count("dim", dim)
        expect_number("decay", decay, low=0.0, high=1.0)
        super().__init__()
        self.decay = decay
        wide = torch.promote_types(torch.get_default_dtype(), torch.float32)
        self.register_buffer("prototypes", torch.zeros(num_classes, dim, dtype=wide))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("sums", torch.zeros(num_classes, dim, dtype=wide))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def forward(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Minus the distance to each prototype, −inf for classes never seen; see :func:`prototype_logits`."""
        return prototype_logits(features, self.prototypes, seen=self.seen)

    def accumulate(self, features: Float[Tensor, "b d"], labels: Int[Tensor, "b"]) -> None:
        """Add a batch to what the next :meth:`commit` will use; skip it as a whole if a feature is not finite."""
        classes, dim = self.sums.shape
        expect_floating("features", features, f"of shape (b, {dim})", ndim=2)
        expect_shape("features", features, (features.shape[0], dim))
        expect_labels("labels", labels, features.shape[0], classes)
        expect_device("features", features, self.sums)
        expect_device("labels", labels, self.sums)
        with torch.inference_mode(False), torch.no_grad():  # a pass in inference mode must leave ordinary buffers
            index = labels.long()
            # the batch on its own first: a small row added to a large running sum would lose its last digits
            batch = torch.zeros_like(self.sums).index_add(0, index, features.to(self.sums.dtype))
            sums = self.sums + batch
            counts = self.counts.index_add(0, index, torch.ones_like(index))
            finite = sums.isfinite().all()
            self.sums = torch.where(finite, sums, self.sums)
            self.counts = torch.where(finite, counts, self.counts)

    def commit(self) -> None:
        """Move the prototypes of all classes that were accumulated, on any rank, and start over."""
        with torch.inference_mode(False), torch.no_grad():
            sums, counts = all_reduce_sum([self.sums, self.counts])
            mean = sums / counts.clamp(min=1)[:, None]
            moved = torch.where(self.seen[:, None], self.decay * self.prototypes + (1 - self.decay) * mean, mean)
            present = (counts > 0) & sums.isfinite().all()  # finite on each rank is not yet finite together
            self.prototypes = torch.where(present[:, None], moved, self.prototypes)
            self.seen = self.seen | present
            self.sums = torch.zeros_like(self.sums)
            self.counts = torch.zeros_like(self.counts)

    def update(self, features: Float[Tensor, "b d"], labels: Int[Tensor, "b"]) -> None:
        """:meth:`accumulate`, then :meth:`commit`."""
        self.accumulate(features, labels)
        self.commit()

    def extra_repr(self) -> str:
        """What stands between the parentheses of the printed module."""
        num_classes, dim = self.prototypes.shape
        return f"num_classes={num_classes}, dim={dim}, decay={self.decay}"
