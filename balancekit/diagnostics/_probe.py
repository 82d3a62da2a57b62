"""What an encoder's features are worth by themselves."""

import torch
from torch import Tensor
from torch.nn import functional as F

from balancekit._checks import expect, expect_count, expect_device, expect_floating, expect_labels, expect_number
from balancekit._typing import Float, Int

MANY = torch.iinfo(torch.int32).max


def probe_accuracy(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, "n"],
    test: Float[Tensor, "k d"],
    test_labels: Int[Tensor, "k"],
    *,
    l2: float = 1e-3,
    iterations: int = 100,
) -> float:
    """Accuracy of a multinomial logistic regression on frozen, standardised features.

    The probe gap of a branch is its accuracy in the joint model less that of the same encoder trained alone: below 0,
    the joint training left it behind. Give a random encoder's accuracy beside it.

    Args:
        train: features to fit on.
        train_labels: their classes.
        test: features to score.
        test_labels: their classes.
        l2: weight of the squared norm of the weights.
        iterations: of L-BFGS, on all samples at once.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0], [-2.0], [2.0]])
        >>> probe_accuracy(x, torch.tensor([0, 1, 0, 1]), x * 3, torch.tensor([0, 1, 0, 0]))
        0.75
    """
    expect_floating("train", train, "of shape (n, d)", ndim=2)
    expect_floating("test", test, "of shape (k, d)", ndim=2)
    expect(test.shape[1] == train.shape[1], "test", f"{train.shape[1]} columns", test)
    expect(train.shape[0] > 1, "train", "at least two samples", train)
    expect(test.shape[0] > 0, "test", "at least one sample", test)
    expect_labels("train_labels", train_labels, train.shape[0], MANY)
    expect_labels("test_labels", test_labels, test.shape[0], MANY)
    for argument, each in (("train_labels", train_labels), ("test", test), ("test_labels", test_labels)):
        expect_device(argument, each, train)
    expect_number("l2", l2, low=0.0)
    expect_count("iterations", iterations)
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    train, test = train.detach().float(), test.detach().float()
    mean, deviation = train.mean(0), train.std(0).clamp(min=1e-6)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    with torch.enable_grad():
        weight = torch.zeros(classes, train.shape[1] + 1, device=train.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=iterations, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = F.linear(train, weight[:, :-1], weight[:, -1])
            value = F.cross_entropy(logits, train_labels.long()) + l2 * weight[:, :-1].square().sum()
            value.backward()
            return value

        optimizer.step(loss)  # type: ignore[arg-type]
    logits = F.linear(test, weight[:, :-1], weight[:, -1])
    return (logits.argmax(-1) == test_labels).float().mean().item()
