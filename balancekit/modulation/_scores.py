"""Scores: how well each modality does on each sample, "b m".

A score is any function of one prediction a modality and a target. Keep its rows for coefficients a sample, or take
their mean over the batch. Higher means faster, but for errors and entropy.

==========================  ======================================================================================
``true_class_score``        softmax(o_m)[y], of OGM-GE; of prototype logits it is PMR's score (Eq. 8)
``multilabel_score``        mean probability of the labels that hold
``regression_score``        exp(−squared error / 2 scale²)
``cross_entropy_score``     −log softmax(o_m)[y]: an error, higher is slower
``squared_error_score``     mean squared error: higher is slower (MLB's regression)
``correct_score``           1 where the prediction is right, of MILES and CGGM
``entropy_score``           entropy of softmax(o_m) in nats: higher is less sure (ARL)
``confidence_score``         exp(−u) of an uncertainty a sample
==========================  ======================================================================================
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_labels, expect_number
from balancekit._precision import widen
from balancekit._typing import Float, Int
from balancekit.modulation._arguments import expect_mapping


@runtime_checkable
class Score(Protocol):
    """Any function from predictions and a target to one value a sample and modality."""

    def __call__(self, predictions: Mapping[str, Tensor], target: Any, /) -> Float[Tensor, "b m"]:
        """Columns in the order of `predictions`."""
        ...


def true_class_score(logits: Mapping[str, Float[Tensor, "b c"]], labels: Int[Tensor, "b"]) -> Float[Tensor, "b m"]:
    """Probability of the true class (OGM-GE, arXiv 2203.15332, Eq. 8, which sums it over the batch).

    Example:
        >>> logits = {"audio": torch.tensor([[0.0, 3.0]]), "video": torch.zeros(1, 2)}
        >>> true_class_score(logits, torch.tensor([1]))
        tensor([[0.9526, 0.5000]])
    """
    return cross_entropy_score(logits, labels).neg().exp()


def cross_entropy_score(logits: Mapping[str, Float[Tensor, "b c"]], labels: Int[Tensor, "b"]) -> Float[Tensor, "b m"]:
    """Cross-entropy in nats: an error, higher is slower."""
    table = stacked(logits)
    expect_labels("labels", labels, table.shape[0], table.shape[-1])
    expect_device("labels", labels, table)
    index = labels.long()[:, None, None].expand(*table.shape[:2], 1)
    return -table.log_softmax(-1).gather(-1, index).squeeze(-1)


def multilabel_score(logits: Mapping[str, Float[Tensor, "b c"]], labels: Tensor) -> Float[Tensor, "b m"]:
    """Mean over a sample's labels that hold of sigmoid(o_m); where none holds, mean of 1 − sigmoid(o_m).

    Args:
        logits: one a label.
        labels: "b c", bool or 0 and 1.
    """
    table = stacked(logits)
    expected = f'labels "b c" of shape {(table.shape[0], table.shape[-1])}'
    expect(isinstance(labels, Tensor) and labels.shape == table[:, 0].shape, "labels", expected, labels)
    expect_device("labels", labels, table)
    holds = labels.bool()
    holds = holds | ~holds.any(-1, keepdim=True)  # without any, all entries count
    truth = torch.where(labels.bool()[:, None], table, -table).sigmoid()
    return (truth * holds[:, None]).sum(-1) / holds.sum(-1, keepdim=True)


def regression_score(
    predictions: Mapping[str, Float[Tensor, "b d"]], target: Float[Tensor, "b d"], *, scale: float = 1.0
) -> Float[Tensor, "b m"]:
    """exp(−e / 2 scale²) of the squared error e: the likelihood of a normal law, 1 where the prediction is exact.

    Args:
        predictions: "b d".
        target: "b d".
        scale: the deviation at which an error counts, in the target's units.
    """
    expect_number("scale", scale, low=0.0, low_open=True)
    return (-squared_error_score(predictions, target) / (2 * scale**2)).exp()


def squared_error_score(
    predictions: Mapping[str, Float[Tensor, "b d"]], target: Float[Tensor, "b d"]
) -> Float[Tensor, "b m"]:
    """Mean over "d" of the squared error: higher is slower."""
    table = stacked(predictions, "predictions")
    expect_floating("target", target, f"of shape {tuple(table[:, 0].shape)}", ndim=2)
    expect(target.shape == table[:, 0].shape, "target", f"a tensor of shape {tuple(table[:, 0].shape)}", target)
    expect_device("target", target, table)
    return (table - target[:, None]).square().mean(-1)


def correct_score(logits: Mapping[str, Float[Tensor, "b c"]], labels: Int[Tensor, "b"]) -> Float[Tensor, "b m"]:
    """1 where the largest logit is the true class's, else 0: its mean is the accuracy."""
    table = stacked(logits)
    expect_labels("labels", labels, table.shape[0], table.shape[-1])
    expect_device("labels", labels, table)
    right = (table.argmax(-1) == labels[:, None]).to(table.dtype)
    return torch.where(table.isnan().any(-1), torch.nan, right)


def entropy_score(logits: Mapping[str, Float[Tensor, "b c"]], labels: Tensor | None = None) -> Float[Tensor, "b m"]:
    """Entropy of softmax(o_m) in nats: higher is less sure. Labels are not needed."""
    return torch.special.entr(stacked(logits).softmax(-1)).sum(-1)


def confidence_score(
    uncertainty: Mapping[str, Float[Tensor, "b"]],
    labels: Tensor | None = None,
    *,
    rate: float = 1.0,
    log: bool = False,
) -> Float[Tensor, "b m"]:
    """exp(−rate · u) of an uncertainty u ≥ 0 of any kind: mutual information, a density's distance, a spread.

    Args:
        uncertainty: u of each modality and sample.
        labels: not needed.
        rate: how fast confidence falls with u.
        log: return the logarithm, which does not underflow.

    Example:
        >>> confidence_score({"audio": torch.tensor([0.0]), "video": torch.tensor([1.0])})
        tensor([[1.0000, 0.3679]])
    """
    expect_number("rate", rate, low=0.0, low_open=True)
    expect_mapping("uncertainty", uncertainty)
    expect(len(uncertainty) > 0, "uncertainty", "at least one modality", {})
    for name, u in uncertainty.items():
        expect_floating(f"uncertainty[{name!r}]", u, 'of shape "b"', ndim=1)
        expect_device(f"uncertainty[{name!r}]", u, next(iter(uncertainty.values())))
    sizes = {name: len(u) for name, u in uncertainty.items()}
    expect(len(set(sizes.values())) == 1, "uncertainty", "one number of samples for all modalities", sizes)
    table = -rate * _stack(uncertainty)
    return table if log else table.exp()


def stacked(predictions: Mapping[str, Tensor], argument: str = "logits") -> Float[Tensor, "b m c"]:
    """Predictions "b c" side by side, detached, in float32 or wider."""
    expect_mapping(argument, predictions)
    expect(len(predictions) > 0, argument, "at least one modality", {})
    for name, each in predictions.items():
        expect_floating(f"{argument}[{name!r}]", each, 'of shape "b c"', ndim=2)
        expect_device(f"{argument}[{name!r}]", each, next(iter(predictions.values())))
    shapes = {name: tuple(each.shape) for name, each in predictions.items()}
    expect(len(set(shapes.values())) == 1, argument, "one shape for all modalities", shapes)
    return _stack(predictions)


def _stack(values: Mapping[str, Tensor]) -> Tensor:
    return widen(torch.stack([each.detach() for each in values.values()], 1))
