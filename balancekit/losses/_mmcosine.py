"""MMCosine: logits from angles alone, so that no modality outvotes the others by the size of its features.

Xu et al. 2023 (arXiv 2303.05338):

    o = Σ_m s cos(z_m, W_m),      cos(z, W)_c = ⟨z, W_c⟩ / (‖z‖ ‖W_c‖)
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from balancekit._checks import expect, expect_device, expect_number, expect_shape
from balancekit._typing import Float
from balancekit.domains import normalise_features
from balancekit.losses._arguments import expect_modalities, expect_names, widest


def cosine_logits(
    features: Mapping[str, Float[Tensor, "b _"]], weights: Mapping[str, Float[Tensor, "c _"]], *, scale: float = 10.0
) -> dict[str, Float[Tensor, "b c"]]:
    """The term of each modality; the fused logits are their sum, and each can be scored alone.

    Every term lies between −`scale` and `scale`, for any number of modalities. A feature or a class weight of length 0
    has no angle: its logits are 0, with a finite gradient.

    Args:
        features: z_m, a row a sample; widths may differ.
        weights: W_m, a row a class and as wide as the feature, without a bias: ``head.weight`` of a linear head.
        scale: s. 10 in the released code; 15 in a toolkit's configuration.

    Returns:
        Logits by modality in the order of `features`, in float32, or wider where an input is.

    Example:
        >>> import torch
        >>> features = {"audio": torch.tensor([[3.0, 4.0]]), "video": torch.tensor([[0.5]])}
        >>> weights = {"audio": torch.tensor([[1.0, 0.0], [0.0, 7.0]]), "video": torch.tensor([[1.0], [-1.0]])}
        >>> logits = cosine_logits(features, weights)
        >>> logits
        {'audio': tensor([[6., 8.]]), 'video': tensor([[ 10., -10.]])}
        >>> sum(logits.values())
        tensor([[16., -2.]])

    Method:
        Name: MMCosine
        Paper: Xu et al., ICASSP 2023, arXiv 2303.05338
        Equation: cosine logits
        Hook: loss
        Cost: none
        Modalities: any
        Test: tests/oracles/test_losses.py
    """
    expect_modalities("features", features, "of shape (b, d)", ndim=2)
    expect_modalities("weights", weights, "of shape (c, d)", ndim=2)
    expect_names("weights", weights, features)
    expect_number("scale", scale, low=0.0, low_open=True)
    samples = next(iter(features.values())).shape[0]
    classes = next(iter(weights.values())).shape[0]
    for name, feature in features.items():
        width = feature.shape[1]
        expect(width > 0, f"features[{name!r}]", "at least one column", feature)
        expect_shape(f"features[{name!r}]", feature, (samples, width))
        expect_shape(f"weights[{name!r}]", weights[name], (classes, width))
        expect_device(f"features[{name!r}]", feature, next(iter(features.values())))
        expect_device(f"weights[{name!r}]", weights[name], feature)
    return {name: scale * _cosine(feature, weights[name]) for name, feature in features.items()}


def _cosine(feature: Tensor, weight: Tensor) -> Tensor:
    dtype = widest((feature, weight))
    return F.linear(normalise_features(feature.to(dtype)), normalise_features(weight.to(dtype)))
