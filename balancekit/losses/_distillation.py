"""Distillation from teachers that were trained on one modality each.

UMT (Du et al. 2021, arXiv 2106.11059) has them teach features, G²D (Rakib and Bagavathi 2025, arXiv 2506.21514)
logits besides:

    UMT    λ Σ_m ‖z_m − z_m^T‖²
    G²D    Σ_m KL(softmax(o_m^T) ‖ softmax(o_m)) + Σ_m ‖z_m − z_m^T‖²

with ‖·‖² a mean over samples and entries. A teacher alone has all of the gradient, so its feature is what the encoder
could reach had nobody taken the gradient away. Teachers receive none.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from balancekit._checks import expect, expect_device, expect_number, expect_shape
from balancekit._typing import Float
from balancekit.losses._arguments import expect_alike, expect_modalities, expect_names, widest


def feature_distillation(
    features: Mapping[str, Float[Tensor, "b ..."]], teacher_features: Mapping[str, Float[Tensor, "b ..."]]
) -> Float[Tensor, ""]:
    """Mean squared error to the teacher's feature, summed over the modalities: UMT without its weight.

    The squared length of a difference, as UMT's equation has it, is as many times the mean as the feature has entries.
    One toolkit weighs the mean with λ = 10.

    Args:
        features: z_m of any shape, a row a sample.
        teacher_features: z_m^T of the same names and shapes; detached here.

    Returns:
        A scalar in float32, or wider where an input is.

    Example:
        >>> import torch
        >>> features = {"audio": torch.tensor([[1.0, 2.0]]), "video": torch.tensor([[3.0]])}
        >>> teachers = {"audio": torch.tensor([[1.0, 0.0]]), "video": torch.tensor([[2.0]])}
        >>> feature_distillation(features, teachers)  # 4 / 2 + 1
        tensor(3.)

    Method:
        Name: UMT
        Paper: Du et al., arXiv 2106.11059
        Equation: feature distillation
        Hook: loss
        Cost: M teachers, forward
        Modalities: any
        Test: tests/oracles/test_losses.py
    """
    _expect_teachers("features", features, teacher_features, "of any shape (b, …)")
    wide = widest([*features.values(), *teacher_features.values()])
    terms = [F.mse_loss(z.to(wide), teacher_features[m].detach().to(wide)) for m, z in features.items()]
    return sum(terms[1:], terms[0])


def unimodal_distillation(
    logits: Mapping[str, Float[Tensor, "b c"]],
    teacher_logits: Mapping[str, Float[Tensor, "b c"]],
    features: Mapping[str, Float[Tensor, "b ..."]],
    teacher_features: Mapping[str, Float[Tensor, "b ..."]],
    *,
    logit_weight: float = 1.0,
    feature_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """G²D's distillation, to be added to the loss: the teachers' class probabilities, and their features.

    KL is summed over the classes, at temperature 1, averaged over the samples and summed over the modalities. G²D
    also stops the gradient of the modality with the more confident teacher in the first epochs; that is modulation,
    and not done here. The released code does so in convolutions only.

    Args:
        logits: o_m, what the student says from each modality. To distil all teachers into one fused output, hand it
            over under each name: ``dict.fromkeys(teacher_logits, fused)``.
        teacher_logits: o_m^T of the same names and shapes; detached here.
        features: as for :func:`feature_distillation`.
        teacher_features: as for :func:`feature_distillation`.
        logit_weight: weight of the KL terms.
        feature_weight: weight of :func:`feature_distillation`.

    Returns:
        A scalar of at least 0, in float32, or wider where an input is.

    Example:
        >>> import torch
        >>> teacher, student = {"audio": torch.tensor([[0.0, 0.0]])}, {"audio": torch.tensor([[0.0, 0.0]])}
        >>> z = {"audio": torch.ones(1, 4)}
        >>> unimodal_distillation(student, teacher, z, {"audio": torch.zeros(1, 4)})
        tensor(1.)

    Method:
        Name: G²D
        Paper: Rakib and Bagavathi, ICCV 2025, arXiv 2506.21514
        Equation: distillation losses
        Hook: loss
        Cost: M teachers, forward
        Modalities: any
        Test: tests/oracles/test_losses.py
    """
    _expect_teachers("logits", logits, teacher_logits, "of shape (b, c)", ndim=2)
    expect_alike("logits", logits)
    expect_number("logit_weight", logit_weight, low=0.0)
    expect_number("feature_weight", feature_weight, low=0.0)
    wide = widest([*logits.values(), *teacher_logits.values()])
    terms = [_divergence(teacher_logits[m].detach().to(wide), o.to(wide)) for m, o in logits.items()]
    return logit_weight * sum(terms[1:], terms[0]) + feature_weight * feature_distillation(features, teacher_features)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher ‖ student) of logits, averaged over the samples."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)


def _expect_teachers(
    argument: str, values: Mapping[str, Tensor], teachers: Mapping[str, Tensor], shape: str, *, ndim: int | None = None
) -> None:
    expect_modalities(argument, values, shape, ndim=ndim)
    expect_modalities(f"teacher_{argument}", teachers, shape, ndim=ndim)
    expect_names(f"teacher_{argument}", teachers, values)
    for name, value in values.items():
        expect(value.numel() > 0, f"{argument}[{name!r}]", "at least one sample", value)
        expect_shape(f"teacher_{argument}[{name!r}]", teachers[name], tuple(value.shape))
        expect_device(f"{argument}[{name!r}]", value, next(iter(values.values())))
        expect_device(f"teacher_{argument}[{name!r}]", teachers[name], value)
