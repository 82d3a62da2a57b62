"""MSLR: a learning rate of its own for each modality (Yao and Mihalcea, ACL Findings 2022).

    k_m = factor_m · A_m / (mean of the last A_m)

with A_m the validation accuracy of modality m. Hand it to :func:`scale_updates`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_count, expect_number
from balancekit._typing import Float
from balancekit.modulation._arguments import expect_mapping, side_by_side


class MSLR(nn.Module):
    """Accuracies of an epoch → a factor of the learning rate for each modality.

    Args:
        factors: of each modality; AGM's code has 0.9 for audio and 1.1 for video.
        window: over how many epochs, this one with it, an accuracy is compared.

    Example:
        >>> mslr = MSLR({"audio": 0.9, "video": 1.1})
        >>> _ = mslr({"audio": 0.5, "video": 0.2})
        >>> mslr({"audio": 0.5, "video": 0.3})
        {'audio': tensor(0.9000), 'video': tensor(1.3200)}

    Method:
        Name: MSLR
        Paper: Yao and Mihalcea, ACL Findings 2022
        Equation: learning rates of modalities
        Hook: updates, once an epoch
        Cost: M evaluations an epoch
        Modalities: any
        Test: tests/oracles/test_modulation.py
    """

    last: Tensor
    count: Tensor

    def __init__(self, factors: Mapping[str, float], *, window: int = 5) -> None:
        super().__init__()
        expect_mapping("factors", factors)
        expect(len(factors) > 0, "factors", "at least one modality", {})
        for name, factor in factors.items():
            expect_number(f"factors[{name!r}]", factor, low=0.0)
        expect_count("window", window)
        self.factors, self.window = dict(factors), window
        self.register_buffer("last", torch.zeros(window, len(factors)))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, accuracies: Mapping[str, Tensor | float]) -> dict[str, Float[Tensor, ""]]:
        """Let accuracies join the window, if all are finite, and return the factors; of zeros, as they were given."""
        expect_mapping("accuracies", accuracies)
        expect(set(accuracies) == set(self.factors), "accuracies", f"one of {list(self.factors)}", list(accuracies))
        now = side_by_side("accuracies", {m: accuracies[m] for m in self.factors}).to(self.last)
        finite, last = now.isfinite().all(), torch.cat([self.last[1:], now[None]])
        mean = last.sum(0) / (self.count + 1).clamp(max=self.window)
        ratio = torch.where(mean == 0, 1, last[-1] / mean)
        self.last.copy_(last.where(finite, self.last))
        self.count.add_(finite)
        return {m: factor * ratio[i] for i, (m, factor) in enumerate(self.factors.items())}
