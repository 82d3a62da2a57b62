"""What each modality contributes to a prediction, by leaving it out or mixing it up."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_generator, expect_labels, expect_shape
from balancekit._shapley import shapley_values
from balancekit._typing import Float, Int


@torch.no_grad()
def shapley_contributions(
    fuse: Callable[[dict[str, Tensor]], Float[Tensor, "b c"]],
    features: Mapping[str, Tensor],
    labels: Int[Tensor, "b"],
) -> dict[str, Float[Tensor, ""]]:
    """Shapley value of each modality for the accuracy of the batch; absent features are zeros.

    They add up to the accuracy less that of the head on zeros alone. 2^M runs of the head.

    Args:
        fuse: features by name → logits.
        features: z_m of any shape, a row a sample.
        labels: class of each sample.

    Example:
        >>> features = {"audio": torch.tensor([[2.0], [-2.0]]), "video": torch.zeros(2, 1)}
        >>> fuse = lambda z: torch.cat([z["audio"] + z["video"], -z["audio"]], 1)
        >>> shapley_contributions(fuse, features, torch.tensor([0, 1]))
        {'audio': tensor(0.5000), 'video': tensor(0.)}
    """
    size = _samples(fuse, features)
    expect(isinstance(labels, Tensor), "labels", f"an integer tensor of shape ({size},)", labels, error=TypeError)

    def accuracy(kept: frozenset[str]) -> Tensor:
        logits = fuse({m: x if m in kept else torch.zeros_like(x) for m, x in features.items()})
        _expect_logits(logits, size)
        expect_labels("labels", labels, *logits.shape)
        expect_device("labels", labels, logits)
        right = (logits.argmax(-1) == labels).float()
        return right.masked_fill(logits.isnan().any(-1), float("nan")).mean()  # argmax takes NaN for a class

    return shapley_values(accuracy, tuple(features), empty=None)


@torch.no_grad()
def permutation_contributions(
    fuse: Callable[[dict[str, Tensor]], Float[Tensor, "b c"]],
    features: Mapping[str, Tensor],
    *,
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """How far the prediction moves if a modality's features are dealt out to other samples, in nats.

    Jensen-Shannon divergence of the class probabilities before and after, a mean over the batch: 0 for a modality that
    is not looked at, log 2 at most. MCR (arXiv 2411.07335) maximises it; here it only measures. M + 1 runs of the head.

    Args:
        fuse: features by name → logits.
        features: z_m of any shape, a row a sample.
        generator: deals, on the CPU.

    Example:
        >>> features = {"audio": torch.tensor([[9.0], [-9.0]]), "video": torch.ones(2, 1)}
        >>> fuse = lambda z: torch.cat([z["audio"] + z["video"], -z["audio"]], 1)
        >>> permutation_contributions(fuse, features, generator=torch.Generator().manual_seed(1))["video"]
        tensor(0.)
    """
    size = _samples(fuse, features)
    expect_generator("generator", generator)
    logits = fuse(dict(features))
    _expect_logits(logits, size)
    order = torch.randperm(size, generator=generator)
    plain = logits.float().log_softmax(-1)
    found = {}
    for m, x in features.items():
        mixed = fuse({**features, m: x[order.to(x.device)]}).float().log_softmax(-1)
        middle = torch.logaddexp(plain, mixed) - torch.tensor(2.0).log()
        divergences = [(p.exp() * (p - middle)).sum(-1) for p in (plain, mixed)]
        found[m] = (divergences[0] + divergences[1]).mean() / 2
    return found


def _samples(fuse: object, features: Mapping[str, Tensor]) -> int:
    """Check both, and say how many samples there are."""
    expect(callable(fuse), "fuse", "a function from features to logits", fuse, error=TypeError)
    expect(isinstance(features, Mapping), "features", "a mapping by modality", features, error=TypeError)
    expect(len(features) > 0, "features", "at least one modality", {})
    sizes = set()
    for m, x in features.items():
        expect(isinstance(x, Tensor), f"features[{m!r}]", "a tensor with one row a sample", x, error=TypeError)
        sizes.add(x.shape[0] if x.ndim else 0)
        expect(len(sizes) == 1 and sizes != {0}, f"features[{m!r}]", "as many rows as the others, at least one", x)
    return sizes.pop()


def _expect_logits(logits: object, size: int) -> None:
    expect_floating("fuse", logits, f"of shape ({size}, c) from it", ndim=2)
    assert isinstance(logits, Tensor)
    expect_shape("fuse", logits, (size, logits.shape[1]))
