"""OPM: drop features of the modality that is ahead (Wei et al., TPAMI 2024), the forward twin of OGM.

    r_m = tanh(λ' relu(ρ_m − 1))          λ' = 1
    q_m = clip(q_base (1 + λ r_m), 0, 1)   if r_m > 0,   else 0
    z_m ← 0 for each sample with probability q_m;  all features · 1 / (1 − θ),  θ = Σ_m d_m q_m / Σ_m d_m

carried out in a share p of the steps.
"""

from collections.abc import Mapping
from functools import partial, reduce
from typing import Literal

import torch
from torch import Tensor

from balancekit._checks import expect, expect_choice, expect_device, expect_generator, expect_number
from balancekit._typing import Float, Int
from balancekit.modulation._acted import tell
from balancekit.modulation._arguments import expect_rows, expect_scalars, expect_table
from balancekit.modulation._modulation import Modulation
from balancekit.modulation._ratios import discrepancy_ratio
from balancekit.modulation._scores import true_class_score


def opm_probability(ratio: Float[Tensor, "*b m"], base: float, strength: float) -> Float[Tensor, "*b m"]:
    """Probability with which the features of a modality are dropped: 0 unless it is ahead."""
    expect_table("ratio", ratio)
    expect_number("base", base, low=0.0, high=1.0)
    expect_number("strength", strength, low=0.0)
    r = torch.tanh((ratio - 1).relu())
    return torch.where(r <= 0, 0, (base * (1 + strength * r)).clamp(0, 1))


class OPM(Modulation):
    """On-the-fly prediction modulation: (logits, labels) → a drop probability for each modality.

    The logits are those of a step before, or of a pass without dropping; hand the result to :func:`drop_features`.

    Args:
        base: q_base; 0.4 to 0.5.
        strength: λ.
        reference: as for :class:`OGM`.

    Example:
        >>> logits = {"audio": torch.tensor([[0.0, 3.0]]), "video": torch.zeros(1, 2)}
        >>> OPM()(logits, torch.tensor([1]))
        {'audio': tensor(0.6797), 'video': tensor(0.)}

    Method:
        Name: OPM
        Paper: Wei et al., TPAMI 2024
        Equation: prediction modulation
        Hook: features, in the forward pass
        Cost: none
        Modalities: any; pairs averaged
        Test: tests/oracles/test_modulation.py
    """

    def __init__(
        self, base: float = 0.5, strength: float = 0.5, *, reference: Literal["others", "pairwise", "min"] = "pairwise"
    ) -> None:
        expect_number("base", base, low=0.0, high=1.0)
        expect_number("strength", strength, low=0.0)
        expect_choice("reference", reference, ("others", "pairwise", "min"))
        super().__init__(
            true_class_score,
            partial(discrepancy_ratio, reference=reference),
            partial(opm_probability, base=base, strength=strength),
        )


def drop_features(
    features: Mapping[str, Float[Tensor, "b *_"]],
    probabilities: Mapping[str, Tensor | float],
    *,
    share: float = 1.0,
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, "b *_"]]:
    """Set the features of single samples to zero, and scale all so that a concatenation keeps its expected size.

    The batch keeps its size: a sample that would lose every modality keeps them all, and θ does not count it. See
    :func:`drop_features_released` for what the released code does with it.

    Args:
        features: z_m, one row a sample.
        probabilities: q_m for the modalities to drop; 0 for those that are not named.
        share: of the steps in which anything is dropped at all (p_exe, 0.7 in the released code).
        generator: of the draws, on the features' device.

    Example:
        >>> features = {"audio": torch.ones(3, 2), "video": torch.ones(3, 2)}
        >>> dropped = drop_features(features, {"audio": 1.0})
        >>> dropped["audio"][0], dropped["video"][0]
        (tensor([0., 0.]), tensor([2., 2.]))
    """
    _check(features, probabilities, share, generator)
    q, widths, acts, keep = _draw(features, probabilities, share, generator)
    keep = keep | ~keep.any(1, keepdim=True)
    lost = (widths * (q - q.prod())).sum() / widths.sum()  # θ, without the samples that keep all
    return _scaled(features, keep, torch.where(acts, 1 / (1 - lost), 1))


def drop_features_released(
    features: Mapping[str, Float[Tensor, "b *_"]],
    labels: Float[Tensor, "b *_"] | Int[Tensor, "b *_"],
    probabilities: Mapping[str, Tensor | float],
    *,
    share: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Float[Tensor, "k *_"]], Tensor]:
    """Drop as the released code does: a sample that loses every modality is removed, together with its label.

    So the batch shrinks, to nothing where every q is 1, the share of each class changes, and how many rows are left is
    read on the host.

    Args:
        features: as for :func:`drop_features`.
        labels: one row a sample.
        probabilities: as for :func:`drop_features`.
        share: as for :func:`drop_features`.
        generator: as for :func:`drop_features`.

    Example:
        >>> features, labels = {"audio": torch.ones(3, 2), "video": torch.ones(3, 2)}, torch.tensor([0, 1, 2])
        >>> dropped, labels = drop_features_released(features, labels, {"audio": 1.0})
        >>> dropped["video"][0], labels
        (tensor([2., 2.]), tensor([0, 1, 2]))
        >>> drop_features_released(features, labels, {"audio": 1.0, "video": 1.0})[1]
        tensor([], dtype=torch.int64)
    """
    _check(features, probabilities, share, generator)
    first = next(iter(features.values()))
    expect(isinstance(labels, Tensor), "labels", "a tensor with one row a sample", labels, error=TypeError)
    expect(labels.shape[:1] == first.shape[:1], "labels", f"{first.shape[0]} rows", labels)
    expect_device("labels", labels, first)
    q, widths, acts, keep = _draw(features, probabilities, share, generator)
    lost = (widths * q).sum() / widths.sum()
    rows = keep.any(1)
    left = {m: z[rows] for m, z in features.items()}
    return _scaled(left, keep[rows], torch.where(acts, 1 / (1 - lost), 1)), labels[rows]


def _check(
    features: Mapping[str, Tensor], probabilities: Mapping[str, Tensor | float], share: float, generator: object
) -> None:
    expect_number("share", share, low=0.0, high=1.0)
    expect_rows(features)
    expect_scalars("probabilities", probabilities)
    unknown = [name for name in probabilities if name not in features]
    expect(not unknown, "probabilities", f"names among {list(features)}", unknown)
    for name, each in probabilities.items():
        if not isinstance(each, Tensor):
            expect_number(f"probabilities[{name!r}]", each, low=0.0, high=1.0)
    expect_generator("generator", generator)


def _draw(
    features: Mapping[str, Tensor],
    probabilities: Mapping[str, Tensor | float],
    share: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is drawn: q "m", widths "m", whether anything is dropped in this step, and which features stay "b m"."""
    first = next(iter(features.values()))
    size, device = first.shape[0], first.device
    wide = reduce(torch.promote_types, (z.dtype for z in features.values()), torch.float32)
    q = torch.stack([torch.as_tensor(probabilities.get(m, 0.0), dtype=wide, device=device) for m in features])
    widths = torch.tensor([float(z.shape[1:].numel()) for z in features.values()], dtype=wide, device=device)
    q = torch.where(widths > 0, q, 1)  # one without features leaves a sample nothing
    tell("features", probabilities)
    acts = torch.rand((), generator=generator, device=device) < share
    keep = torch.rand(size, len(features), generator=generator, device=device) >= q
    return q, widths, acts, keep | ~acts


def _scaled(features: Mapping[str, Tensor], keep: Tensor, scale: Tensor) -> dict[str, Tensor]:
    return {
        m: z * (keep[:, i] * scale).to(z.dtype).reshape(-1, *[1] * (z.ndim - 1))
        for i, (m, z) in enumerate(features.items())
    }
