"""SMV: what each modality is worth in each sample, and how often to show it alone.

Wei et al., "Enhancing Multimodal Cooperation via Sample-level Modality Valuation", CVPR 2024 (arXiv 2309.06255).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_labels, in_range
from balancekit._precision import widen
from balancekit._shapley import shapley_values
from balancekit._typing import Bool, Float, Int

MANY = torch.iinfo(torch.int32).max


def smv_values(
    predictions: Mapping[frozenset[str], Int[Tensor, "b"]] | Mapping[tuple[str, ...], Int[Tensor, "b"]],
    labels: Int[Tensor, "b"],
) -> Float[Tensor, "b m"]:
    """What each modality is worth in each sample: its Shapley value φ, where v(S) = |S| if S is right, and 0 if not.

    For two modalities that is SMV's φ_a = (v_a + v_av − v_v) / 2, with v = 1 for one of them that is right and 2 for
    both. Its code is for two modalities; v(S) = |S| goes on in the same way, so that a modality is worth 1 where all
    subsets are right, for any number of them. The values of a sample add up to that number if all together are right,
    and to 0 if not.

    Args:
        predictions: the predicted class of each sample, for every subset of the modalities but the empty one (the
            others masked); keys are tuples in any order, or frozensets. At most 10 modalities.
        labels: class of each sample.

    Returns:
        One column a modality, in the order of the subsets of one modality in `predictions`; in float32, in which ties
        are exact.

    Raises:
        ValueError: if a subset is missing or stands there twice.

    Example:
        >>> labels = torch.tensor([0, 1, 1])
        >>> audio, video, both = torch.tensor([0, 1, 0]), torch.tensor([0, 0, 0]), torch.tensor([0, 1, 1])
        >>> smv_values({("audio",): audio, ("video",): video, ("audio", "video"): both}, labels)
        tensor([[1.0000, 1.0000],
                [1.5000, 0.5000],
                [1.0000, 1.0000]])

    Method:
        Name: SMV
        Paper: Wei et al., CVPR 2024
        Equation: sample-level valuation
        Hook: which samples are drawn
        Cost: 2^M − 1 evaluations an epoch
        Modalities: any; v is the size of a set
        Test: tests/oracles/test_sampling.py
    """
    names, by_subset = _by_subset(predictions)
    expect(isinstance(labels, Tensor), "labels", "an integer tensor of shape (b,)", labels, error=TypeError)
    expect(labels.ndim == 1, "labels", "an integer tensor of shape (b,)", labels)
    samples = labels.shape[0]
    expect_labels("labels", labels, samples, MANY)
    for subset, predicted in by_subset.items():
        expect_labels(f"predictions[{tuple(sorted(subset))}]", predicted, samples, MANY)
        expect_device(f"predictions[{tuple(sorted(subset))}]", predicted, labels)

    def value(subset: frozenset[str]) -> Tensor:
        return len(subset) * (by_subset[subset] == labels).float()

    return torch.stack(list(shapley_values(value, names).values()), dim=1)


def _by_subset(
    predictions: Mapping[frozenset[str], Tensor] | Mapping[tuple[str, ...], Tensor],
) -> tuple[list[str], dict[frozenset[str], Tensor]]:
    expected = "a mapping from tuples or frozensets of names to predictions"
    expect(isinstance(predictions, Mapping), "predictions", expected, predictions, error=TypeError)
    by_subset: dict[frozenset[str], Tensor] = {}
    for subset, predicted in predictions.items():
        named = isinstance(subset, tuple | frozenset) and all(isinstance(name, str) for name in subset)
        expect(named, "predictions", expected, subset, error=TypeError)
        by_subset[frozenset(subset)] = predicted
    names = [name for subset in by_subset if len(subset) == 1 for name in subset]
    sensible = all(0 < len(subset) == len(frozenset(subset) & set(names)) for subset in predictions)
    complete = sensible and len(by_subset) == len(predictions) == 2 ** len(names) - 1 > 0
    found = [tuple(subset) if isinstance(subset, tuple) else tuple(sorted(subset)) for subset in predictions]
    expect(complete, "predictions", "every subset but the empty one, once, of some modalities", found)
    return names, by_subset


def smv_copies(values: Float[Tensor, "b m"]) -> Int[Tensor, "b m"]:
    """How often SMV shows a sample to a modality alone, on top of once to all of them together.

        φ ≥ 1             never: the modality does its part
        0.4 < φ < 1       once
        −0.1 < φ ≤ 0.4    twice
        φ ≤ −0.1          three times: it misleads

    The intervals that SMV prints are open; here 0.4 and −0.1 belong to the lower one. Between two modalities φ is −0.5,
    0, 0.5, 1 or 1.5, so that nothing hangs on it.

    Args:
        values: φ of each sample and modality, see :func:`smv_values`. A NaN has no copies.

    Example:
        >>> smv_copies(torch.tensor([[1.5, 0.5], [1.0, 1.0], [0.0, 0.0], [-0.5, 0.5]]))
        tensor([[0, 1],
                [0, 0],
                [2, 2],
                [3, 1]])
    """
    expect_floating("values", values, "of shape (b, m)", ndim=2)
    return (values < 1).long() + (values <= 0.4) + (values <= -0.1)


def smv_weights(values: Float[Tensor, "b m"]) -> Float[Tensor, "m"]:
    """The probability with which a modality sees any sample alone: SMV by modality, coarser and cheaper.

        p_m = clip(max over j of φ̄_j − φ̄_m, 0, 1),    φ̄ the mean of φ over the samples

    It is 0 for the best modality, and grows as one falls behind. That p is the gap itself, clipped, and to the best one
    where there are several, is a choice made here.

    Args:
        values: φ of some samples, see :func:`smv_values`. A part of the training set will do, such as 0.2 of it,
            as φ costs a pass for every subset.

    Returns:
        One probability a modality, in float32 or wider.

    Example:
        >>> smv_weights(torch.tensor([[1.5, 0.5], [1.0, 1.0]]))
        tensor([0.0000, 0.5000])
    """
    expect_floating("values", values, "of shape (b, m)", ndim=2)
    expect(values.numel() > 0, "values", "at least one sample and one modality", values)
    mean = widen(values).mean(0)
    return (mean.max() - mean).clamp(0, 1)


def smv_plan(copies: Int[Tensor, "b m"]) -> tuple[Int[Tensor, "k"], Bool[Tensor, "k m"]]:
    """The rows of an epoch: every sample once with all its modalities, then its copies with one modality each.

    Args:
        copies: how often each sample is to be seen by each modality alone, see :func:`smv_copies`.

    Returns:
        The index of the sample of each row, and which of its modalities stay. The first b rows are the samples as they
        are; the copies follow in the order of the samples, then of the modalities.

    Example:
        >>> index, keep = smv_plan(torch.tensor([[0, 2], [1, 0]]))
        >>> index
        tensor([0, 1, 0, 0, 1])
        >>> keep
        tensor([[ True,  True],
                [ True,  True],
                [False,  True],
                [False,  True],
                [ True, False]])
    """
    expect(isinstance(copies, Tensor), "copies", "an integer tensor of shape (b, m)", copies, error=TypeError)
    expect(copies.ndim == 2, "copies", "an integer tensor of shape (b, m)", copies)
    expect(copies.shape[1] > 0, "copies", "at least one modality", copies)
    in_range("copies", copies, MANY)
    samples, modalities = copies.shape
    cells = torch.arange(copies.numel(), device=copies.device).repeat_interleave(copies.flatten())
    index = torch.cat([torch.arange(samples, device=copies.device), cells // modalities])
    alone = torch.eye(modalities, dtype=torch.bool, device=copies.device)[cells % modalities]
    return index, torch.cat([torch.ones_like(copies, dtype=torch.bool), alone])
