"""Coefficients as a composition: score → ratio → coefficient.

Nearly every method that changes the size of gradients is one choice of each:

    s = score(logits, labels)      "b m"    how well each modality does on each sample
    s = mean over the batch        "m"      unless the coefficient is to be one a sample
    ρ = ratio(s)                            how far each is ahead of the others; 1 is neutral
    k = coefficient(ρ)                      what its gradient, update, noise or drop rate is multiplied by
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from balancekit._checks import expect, expect_device
from balancekit._distributed import all_reduce_sum, expect_agreement
from balancekit._typing import Bool, Float
from balancekit.modulation._arguments import expect_mapping
from balancekit.modulation._ratios import Ratio
from balancekit.modulation._scores import Score

Presence = Mapping[str, Bool[Tensor, "b"]]


@runtime_checkable
class Coefficient(Protocol):
    """Any function from ratios to coefficients."""

    def __call__(self, ratio: Float[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
        """A coefficient a modality; 1 changes nothing."""
        ...


@runtime_checkable
class Actuator(Protocol):
    """Any function that brings coefficients to bear on something: features, parameters, an optimizer."""

    def __call__(self, target: Any, coefficients: Mapping[str, Tensor], *args: Any) -> Any:
        """Act."""
        ...


class Modulated(NamedTuple):
    """What a modulation found, "m" for a batch or "b m" for its samples; columns as in `names`."""

    names: tuple[str, ...]
    scores: Tensor
    ratios: Tensor
    coefficients: Tensor


class Modulator(nn.Module):
    """Predictions and labels → a coefficient for each modality; what was found is handed to hooks and kept nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self._hooks: OrderedDict[int, Callable[[Modulated], None]] = OrderedDict()

    def find(self, logits: Mapping[str, Tensor], labels: Any, present: Presence | None) -> Modulated:
        """Find the coefficients."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(
        self, logits: Mapping[str, Tensor], labels: Tensor | None = None, *, present: Presence | None = None
    ) -> dict[str, Tensor]:
        """Return a coefficient () for each modality, or "b" where there is one a sample.

        Args:
            logits: a prediction of each modality, as the score asks for it. One that is left out is absent.
            labels: what the score compares with, if it does.
            present: for which samples a modality is there, a bool "b"; all, where it is not named. Absent samples are
                in no mean and no reference; a modality without any has the coefficient of the ratio 1.
        """
        expect_mapping("logits", logits)
        found = self.find(logits, labels, present)
        for hook in tuple(self._hooks.values()):
            hook(found)
        return dict(zip(found.names, found.coefficients.unbind(-1), strict=True))

    def register_step_hook(self, hook: Callable[[Modulated], None]) -> RemovableHandle:
        """Call `hook` with a :class:`Modulated` in every call; returns a handle whose ``remove()`` ends it."""
        expect(callable(hook), "hook", "a function", hook, error=TypeError)
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle


class Modulation(Modulator):
    """Any score, ratio and coefficient as one call.

    Several processes add up their scores, so all of them find the same coefficients; each must make the call. Nothing
    has a gradient.

    Args:
        score: such as :func:`true_class_score`, or a function of your own.
        ratio: such as :func:`discrepancy_ratio`.
        coefficient: such as ``partial(ogm_coefficient, alpha=0.8)``.
        per_sample: keep one coefficient a sample, "b", instead of one for the batch.

    Example:
        >>> from functools import partial
        >>> from balancekit.modulation import discrepancy_ratio, true_class_score, two_sided_coefficient
        >>> each = Modulation(true_class_score, discrepancy_ratio, partial(two_sided_coefficient, alpha=1.0))
        >>> each({"audio": torch.tensor([[0.0, 3.0]]), "video": torch.zeros(1, 2)}, torch.tensor([1]))
        {'audio': tensor(0.5577), 'video': tensor(1.7188)}
    """

    score: Score
    ratio: Ratio
    coefficient: Coefficient
    per_sample: bool

    def __init__(self, score: Score, ratio: Ratio, coefficient: Coefficient, *, per_sample: bool = False) -> None:
        super().__init__()
        for name, part in (("score", score), ("ratio", ratio), ("coefficient", coefficient)):
            expect(callable(part), name, "a function", part, error=TypeError)
        self.score, self.ratio, self.coefficient, self.per_sample = score, ratio, coefficient, per_sample

    def find(self, logits: Mapping[str, Tensor], labels: Any, present: Presence | None) -> Modulated:
        """Score, ratio, coefficient."""
        names = tuple(logits)
        scores = self.score(logits, labels)
        there = presence(names, scores, present)
        if not self.per_sample:
            scores, there = batch_mean(names, scores, there)
        ratios = self.ratio(scores, present=there)
        return Modulated(names, scores, ratios, self.coefficient(ratios))


def presence(names: tuple[str, ...], scores: Tensor, present: Presence | None) -> Tensor:
    """Which scores count, a bool "b m"."""
    present = {} if present is None else present
    expect_mapping("present", present)
    there = torch.ones_like(scores, dtype=torch.bool)
    for name, each in present.items():
        expect(name in names, "present", f"names among {list(names)}", name)
        expected = f"a bool tensor of shape {tuple(scores.shape[:1])}"
        fits = isinstance(each, Tensor) and each.dtype == torch.bool and each.shape == scores.shape[:1]
        expect(fits, f"present[{name!r}]", expected, each)
        if each.device.type != "cpu":  # as a data loader brings it
            expect_device(f"present[{name!r}]", each, scores)
        there[:, names.index(name)] = each
    return there


def batch_mean(
    names: tuple[str, ...], scores: Float[Tensor, "b m"], there: Bool[Tensor, "b m"]
) -> tuple[Tensor, Tensor]:
    """Mean over the samples of all processes that count, and which modalities have one."""
    expect_agreement("logits", names, scores.device)
    total, count = all_reduce_sum([scores.where(there, 0).sum(0), there.sum(0)])
    return total / count.clamp(min=1), count > 0
