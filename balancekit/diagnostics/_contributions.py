"""What each modality contributes to a prediction, by leaving it out or mixing it up."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

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

    def accuracy(kept: frozenset[str]) -> Tensor:
        z = {m: x if m in kept else torch.zeros_like(x) for m, x in features.items()}
        return (fuse(z).argmax(-1) == labels).float().mean()

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
    size = next(iter(features.values())).shape[0]
    order = torch.randperm(size, generator=generator)
    plain = fuse(dict(features)).float().log_softmax(-1)
    found = {}
    for m, x in features.items():
        mixed = fuse({**features, m: x[order.to(x.device)]}).float().log_softmax(-1)
        middle = torch.logaddexp(plain, mixed) - torch.tensor(2.0).log()
        divergences = [(p.exp() * (p - middle)).sum(-1) for p in (plain, mixed)]
        found[m] = (divergences[0] + divergences[1]).mean() / 2
    return found
