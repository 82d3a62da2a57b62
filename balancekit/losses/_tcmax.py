"""TCMax: cross-entropy against every combination of samples and every class, in closed form.

Yu et al. 2026 (arXiv 2602.13015). Of two modalities, with f the logits of a fused head:

    L = −(1/B) Σ_i log[ exp f(z_i)_{y_i} / Σ_{j,k,y} exp f(z^a_j, z^v_k)_y ] − log(B² C)

Where the fused logits are a sum over modalities, f = Σ_m o_m, the sum over all B^M combinations is a product of M sums,
and B·C values a modality are enough, for any number M of modalities:

    L = −(1/B) Σ_i Σ_m o_m(i, y_i) + LSE_y Σ_m LSE_j o_m(j, y) − M log B − log C

LSE is log-sum-exp. Cross-entropy compares a sample with itself under other classes, so one confident modality settles
it. Here the denominator also pairs the video of one sample with the audio of another, and is the same for all samples.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from balancekit._typing import Float, Int
from balancekit.losses._arguments import expect_logits, stacked


def tcmax_loss(
    logits: Mapping[str, Float[Tensor, "b c"]], labels: Int[Tensor, "b"], *, released: bool = False
) -> Float[Tensor, ""]:
    """TCMax of additive logits: takes the place of the cross-entropy of their sum, and has no hyper-parameter.

    It is 0 where all logits are equal, and negative where they tell the classes apart: minus the loss estimates the
    total correlation of the features and the label, in nats, for classes that are equally frequent. The batch supplies
    the combinations, so a larger one estimates better, and a process compares with its own samples only.

    Args:
        logits: o_m, whose **sum** is the fused output, bias included: ``slice_logits`` of a linear head on a
            concatenation, or :func:`~balancekit.losses.cosine_logits`. Slices of a head that is not linear do not
            add up, and make this another loss.
        labels: class of each sample.
        released: subtract log B alone, as the released code does. That is a constant, and no gradient changes. Its sum
            of exponentials overflows in float32 where logits are large; neither form does here.

    Returns:
        A scalar in float32, or wider where an input is.

    Example:
        >>> import torch
        >>> labels = torch.tensor([0, 1])
        >>> video = torch.zeros(2, 2, requires_grad=True)
        >>> audio = torch.tensor([[9.0, -9.0], [-9.0, 9.0]])  # always right
        >>> loss = tcmax_loss({"audio": audio, "video": video}, labels)
        >>> round(loss.item(), 4)  # nearly −log 2
        -0.6931
        >>> loss.backward()
        >>> video.grad  # not starved: cross-entropy of the sum gives 8e-9
        tensor([[-0.2500,  0.2500],
                [ 0.2500, -0.2500]])

    Method:
        Name: TCMax
        Paper: Yu et al., ICLR 2026, arXiv 2602.13015
        Equation: closed form for additive logits
        Hook: loss
        Cost: none
        Modalities: any
        Test: tests/oracles/test_losses.py
    """
    expect_logits(logits, labels)
    joint = stacked(logits.values())
    modalities, samples, classes = joint.shape
    true = joint.sum(0).gather(-1, labels.long()[:, None]).mean()
    everything = joint.logsumexp(1).sum(0).logsumexp(-1)
    count = math.log(samples) if released else modalities * math.log(samples) + math.log(classes)
    return everything - true - count
