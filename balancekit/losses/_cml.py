"""CML: confidence must not rise when a modality is taken away.

Ma et al. 2023 (arXiv 2306.01265). S and T are sets of modalities, and conf(T) is the confidence of the prediction from
T alone:

    L = mean over samples of  Σ_{S ⊂ T} relu(conf(S) − conf(T)) · 1[the pair counts for this sample]

The hinge is inside the mean. Where it is outside, a sample whose confidence falls pays for one whose confidence rises.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_shape
from balancekit._typing import Bool, Float
from balancekit.losses._arguments import stacked

Names = TypeVar("Names", bound=str | tuple[str, ...] | frozenset[str])


def confidence_ranking_loss(
    confidences: Mapping[Names, Float[Tensor, "b"]],
    *,
    counts: Mapping[Names, Bool[Tensor, "b"]] | None = None,
    all_pairs: bool = False,
    per_sample: bool = True,
) -> Float[Tensor, ""]:
    """Penalise every set of modalities that is more confident than the same set with one modality more.

    Added to the loss with a weight of about 0.1. Gradients flow to both sides: down in S, up in T.

    Args:
        confidences: conf by set of modalities, ``logits.softmax(-1).amax(-1)`` as a rule. A set is a tuple or a
            frozenset of names in any order; a name alone stands for itself.
        counts: which samples count in the pairs whose larger set is this one, such as those which that set classifies
            correctly, or those which have all its modalities. The others have weight 0, and the mean is still over all
            samples. A set that is not named counts for all. By default everything counts, right or wrong: the
            principle is about confidence, not about correctness.
        all_pairs: compare every S ⊂ T. By default T has one modality more than S, which is the same for two modalities;
            for more, such steps order the rest as well, as long as the sets in between are given.
        per_sample: False puts the hinge outside the mean, as one third-party toolkit does.

    Returns:
        A scalar of at least 0, in float32 or wider.

    Example:
        >>> both = torch.tensor([0.4, 0.9])
        >>> audio = video = torch.tensor([0.9, 0.4])
        >>> confidences = {"audio": audio, "video": video, ("audio", "video"): both}
        >>> confidence_ranking_loss(confidences)  # the first sample breaks the rule twice, by 0.5
        tensor(0.5000)
        >>> confidence_ranking_loss(confidences, per_sample=False)
        tensor(0.)

    Method:
        Name: CML
        Paper: Ma et al., ICML 2023, arXiv 2306.01265
        Equation: ranking loss
        Hook: loss
        Cost: a run of the head a set
        Modalities: any; sets that differ by one
        Test: tests/oracles/test_losses.py
    """
    sets = _by_set("confidences", confidences)
    expect(len(sets) > 0, "confidences", "at least one set of modalities", {})
    for names, confidence in sets.items():
        expect_floating(f"confidences[{_text(names)}]", confidence, "of shape (b,)", ndim=1)
    first = next(iter(sets.values()))
    expect(first.shape[0] > 0, "confidences", "at least one sample", first)
    for names, confidence in sets.items():
        expect_shape(f"confidences[{_text(names)}]", confidence, tuple(first.shape))
        expect_device(f"confidences[{_text(names)}]", confidence, first)
    pairs = [(s, t) for t in sets for s in sets if s < t and (all_pairs or len(t) - len(s) == 1)]
    wanted = "a set of modalities, and the same with " + ("more" if all_pairs else "one more")
    expect(len(pairs) > 0, "confidences", wanted, [_text(names) for names in sets])
    smaller, larger = (stacked(sets[pair[side]] for pair in pairs) for side in (0, 1))
    excess = smaller - larger
    if counts is not None:
        excess = excess * _counting(counts, pairs, excess)
    hinge = excess.relu().mean(-1) if per_sample else excess.mean(-1).relu()
    return hinge.sum() + 0 * excess.detach().sum()  # the hinge of -inf is 0, which would hide it


def _by_set(argument: str, values: object) -> dict[frozenset[str], Tensor]:
    """The same values with frozensets for keys."""
    expect(isinstance(values, Mapping), argument, "a mapping from sets of modalities", values, error=TypeError)
    assert isinstance(values, Mapping)
    sets: dict[frozenset[str], Tensor] = {}
    for key, value in values.items():
        names = (key,) if isinstance(key, str) else key
        fits = isinstance(names, tuple | frozenset) and all(isinstance(name, str) for name in names)
        expect(fits and len(names) > 0, argument, "names, or tuples or frozensets of names, as keys", key)
        expect(frozenset(names) not in sets, argument, "each set of modalities once", sorted(names))
        sets[frozenset(names)] = value
    return sets


def _counting(
    counts: Mapping[Names, Tensor], pairs: list[tuple[frozenset[str], frozenset[str]]], excess: Tensor
) -> Tensor:
    """Which samples count, for each pair."""
    sets = _by_set("counts", counts)
    larger = [t for _, t in pairs]
    strays = [_text(names) for names in sets if names not in larger]
    expect(not strays, "counts", f"sets among {sorted(map(_text, set(larger)))}", strays)
    samples = excess.shape[1]
    for names, value in sets.items():
        argument, expected = f"counts[{_text(names)}]", f"a bool tensor of shape ({samples},)"
        expect(isinstance(value, Tensor) and value.dtype == torch.bool, argument, expected, value, error=TypeError)
        expect_shape(argument, value, (samples,))
        expect_device(argument, value, excess)
    everyone = torch.ones(samples, dtype=torch.bool, device=excess.device)
    return torch.stack([sets.get(t, everyone) for t in larger])


def _text(names: frozenset[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
