"""CGGM, its magnitude part: less gradient for the modality whose own head improved most (Guo et al., NeurIPS 2024).

    d_m = accuracy_m(t) − accuracy_m(t−1)
    b_m = (D − d_m) / D,   D = Σ_j d_j + 1e-8
    k_m = scale · b_m

Where accuracies fall D comes near 0 and the printed form explodes: d = (.05, −.05, 0) gives b = ±5·10⁶. Here b is kept
in [0, 1], where it lies as long as nothing falls, and is (M − 1) / M, as for equal gains, where D is not positive.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_floating, expect_number
from balancekit._typing import Float
from balancekit.modulation._arguments import expect_mapping, side_by_side


def cggm_coefficient(gains: Float[Tensor, "m"], scale: float = 1.3, *, released: bool = False) -> Float[Tensor, "m"]:
    """Multiply (D − d_m) / D by `scale`.

    Args:
        gains: d, the change of each modality's accuracy.
        scale: 1.3, and 1.0 on BraTS.
        released: without bounds, as printed and as released.

    Example:
        >>> cggm_coefficient(torch.tensor([0.06, 0.02]))
        tensor([0.3250, 0.9750])
    """
    expect_floating("gains", gains, "of shape (m,)", ndim=1)
    expect(len(gains) > 0, "gains", "at least one modality", gains)
    expect_number("scale", scale, low=0.0, low_open=True)
    total = gains.sum() + 1e-8
    share = (total - gains) / total
    if released:
        return scale * share
    equal = (len(gains) - 1) / len(gains)
    return scale * torch.where(gains.sum() <= 1e-6, equal, share.clamp(0, 1))


class CGGM(nn.Module):
    """Classifier-guided gradient modulation: accuracies of an epoch → a coefficient for each modality.

    The accuracies are those of a head a modality on detached features. The paper's loss on the direction of gradients
    is not part of it: its released code compares head weights, not gradients.

    Args:
        modalities: their names, in the order of the buffer.
        scale: 1.3, and 1.0 on BraTS.
        released: without bounds, as printed and as released.

    Example:
        >>> cggm = CGGM(["audio", "video"])
        >>> cggm({"audio": 0.40, "video": 0.30})  # nothing to compare with yet
        {'audio': tensor(1.), 'video': tensor(1.)}
        >>> cggm({"audio": 0.46, "video": 0.32})
        {'audio': tensor(0.3250), 'video': tensor(0.9750)}

    Method:
        Name: CGGM, magnitude
        Paper: Guo et al., NeurIPS 2024
        Equation: the factor b
        Hook: gradients, once an epoch
        Cost: a head a modality
        Modalities: any
        Test: tests/oracles/test_modulation.py
    """

    accuracy: Tensor
    calls: Tensor

    def __init__(self, modalities: Collection[str], scale: float = 1.3, *, released: bool = False) -> None:
        super().__init__()
        several = isinstance(modalities, Collection) and not isinstance(modalities, str)
        expect(several, "modalities", "a list of names", modalities, error=TypeError)
        different = len(set(modalities)) == len(modalities) > 0
        expect(different, "modalities", "names that differ, at least one", list(modalities))
        expect_number("scale", scale, low=0.0, low_open=True)
        self.modalities, self.scale, self.released = tuple(modalities), scale, released
        self.register_buffer("accuracy", torch.zeros(len(self.modalities)))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, accuracies: Mapping[str, Tensor | float]) -> dict[str, Float[Tensor, ""]]:
        """Compare with the accuracies of the last call that had finite ones; 1 for all at the first such call."""
        expect_mapping("accuracies", accuracies)
        expect(
            set(accuracies) == set(self.modalities), "accuracies", f"one of {list(self.modalities)}", list(accuracies)
        )
        now = side_by_side("accuracies", {m: accuracies[m] for m in self.modalities}).to(self.accuracy)
        gains = now - self.accuracy
        finite = now.isfinite().all()
        k = torch.where((self.calls == 0) & finite, 1, cggm_coefficient(gains, self.scale, released=self.released))
        self.accuracy.copy_(now.where(finite, self.accuracy))
        self.calls.add_(finite)
        return dict(zip(self.modalities, k.unbind(), strict=True))
