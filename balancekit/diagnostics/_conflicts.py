"""What a Rebalancer's step says of each pair of modalities."""

from itertools import combinations

from torch import Tensor

from balancekit.surgery import Surgery


def conflicts(names: tuple[str, ...], what: Surgery) -> dict[str, Tensor]:
    """Losses, confidences, and how the gradients of each pair of modalities lie to each other, where they meet."""
    step = what.step
    found = {f"loss/{m}": step.losses[i] for i, m in enumerate(names)}
    found |= {f"confidence/{m}": step.confidence[i] for i, m in enumerate(names)}
    gram = what.gram[:, 1:, 1:] * step.units.square()[:, None, None]
    for i, j in combinations(range(len(names)), 2):
        met = (gram[:, i, i] > 0) & (gram[:, j, j] > 0)
        product = (gram[:, i, j] * met).sum()
        size = ((gram[:, i, i] * met).sum() * (gram[:, j, j] * met).sum()).sqrt()
        found[f"cosine/{names[i]}-{names[j]}"] = product / size  # NaN where they never meet
        found[f"conflict/{names[i]}-{names[j]}"] = ((gram[:, i, j] < 0) & met).sum() / met.sum()
    return found
