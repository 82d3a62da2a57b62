"""What each modality says alone: unimodal logits from a fused head.

Every score depends on them, and numbers from different conventions cannot be compared, so each has a name of its own:

=====================  ===========================================================================================
``slice_logits``       o_m = W_m z_m + b / M, for a linear head on a concatenation (OGM-GE, PMR); their sum is the
                       head's output
``zero_out_logits``    o_m = f(0, …, z_m, …, 0), for any head; zeros may be far from what it was trained on
``shapley_logits``     o_m = the Shapley value of m; their sum is the head's output (AGM, Eq. 4); 2^M − 1 runs of it
a head of its own      o_m = h_m(z_m): nothing to do here. On a detached feature it changes nothing; on an attached one
                       it is supervision besides
=====================  ===========================================================================================
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_device, expect_floating
from balancekit._shapley import shapley_values
from balancekit._typing import Float
from balancekit.modulation._arguments import expect_features


def slice_logits(head: nn.Linear, features: Mapping[str, Float[Tensor, "b _"]]) -> dict[str, Float[Tensor, "b c"]]:
    """Split a linear head on concatenated features: ``o_m = W_m z_m + b / M``, so that ``Σ_m o_m`` is its output.

    OGM-GE (Peng et al. 2022, arXiv 2203.15332), §3.2, where the bias is halved for two modalities.

    Args:
        head: the layer that reads the concatenation.
        features: z_m "b d_m", in the order of the concatenation.

    Raises:
        ValueError: where the widths do not add up to what the head reads.

    Example:
        >>> head = nn.Linear(5, 3)
        >>> features = {"audio": torch.ones(2, 4), "video": torch.ones(2, 1)}
        >>> logits = slice_logits(head, features)
        >>> torch.allclose(logits["audio"] + logits["video"], head(torch.ones(2, 5)), atol=1e-6)
        True
    """
    expect(isinstance(head, nn.Linear), "head", "a torch.nn.Linear on the concatenated features", head, error=TypeError)
    expect_features(features)
    for name, feature in features.items():
        expect_floating(f"features[{name!r}]", feature, 'of shape "b d"', ndim=2)
        expect_device(f"features[{name!r}]", feature, head.weight)
    widths = [feature.shape[1] for feature in features.values()]
    expect(sum(widths) == head.in_features, "features", f"widths that add up to {head.in_features}", widths)
    bias = None if head.bias is None else head.bias / len(features)
    parts = head.weight.split(widths, dim=1)
    return {m: nn.functional.linear(z.to(w.dtype), w, bias) for (m, z), w in zip(features.items(), parts, strict=True)}


def zero_out_logits(
    fuse: Callable[[dict[str, Tensor]], Float[Tensor, "b c"]], features: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "b c"]]:
    """Run the head once a modality, with the features of all others set to zero.

    Args:
        fuse: features by name → logits. A batch norm inside sees zeros, and in training mode learns from them.
        features: z_m of any shape.

    Example:
        >>> features = {"audio": torch.tensor([[1.0]]), "video": torch.tensor([[2.0]])}
        >>> zero_out_logits(lambda z: z["audio"] * 10 + z["video"], features)
        {'audio': tensor([[10.]]), 'video': tensor([[2.]])}
    """
    _check(fuse, features)
    return {m: fuse(only({m}, features)) for m in features}


def shapley_logits(
    fuse: Callable[[dict[str, Tensor]], Float[Tensor, "b c"]], features: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "b c"]]:
    """The Shapley value of each modality's feature for the head's output, with f(∅) = 0; their sum is that output.

    AGM (Li et al. 2023, arXiv 2308.07686), Eq. 4: for two modalities ``φ_a = ½ (f(a, v) − f(0, v) + f(a, 0))``. Its
    released code pads inputs instead of features.

    Args:
        fuse: as for :func:`zero_out_logits`; it runs 2^M − 1 times.
        features: z_m of any shape.

    Example:
        >>> features = {"audio": torch.tensor([[1.0]]), "video": torch.tensor([[2.0]])}
        >>> shapley_logits(lambda z: z["audio"] * z["video"] + z["audio"], features)
        {'audio': tensor([[2.]]), 'video': tensor([[1.]])}
    """
    _check(fuse, features)
    return shapley_values(lambda kept: fuse(only(kept, features)), tuple(features))


def _check(fuse: object, features: Mapping[str, Tensor]) -> None:
    expect(callable(fuse), "fuse", "a function from features to logits", fuse, error=TypeError)
    expect_features(features)


def only(kept: set[str] | frozenset[str], features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features with zeros for all that are not `kept`."""
    return {m: z if m in kept else torch.zeros_like(z) for m, z in features.items()}
