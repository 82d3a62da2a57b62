"""Data Remixing: each sample to the modality that it is hardest for, in batches of one modality.

Ma et al., "Improving Multimodal Learning Balance and Sufficiency through Data Remixing", ICML 2025 (arXiv 2506.11550).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from balancekit._checks import (
    expect,
    expect_count,
    expect_device,
    expect_floating,
    expect_generator,
    expect_labels,
    expect_shape,
)
from balancekit._precision import widen
from balancekit._typing import Float, Int

MANY = torch.iinfo(torch.int32).max


def remix_assign(logits: Mapping[str, Float[Tensor, "b c"]]) -> Int[Tensor, "b"]:
    """The modality that each sample is hardest for: the one whose prediction is nearest to none at all.

        argmin over m of KL(p_m ‖ U) = log c − H(p_m),    p_m = softmax(logits_m)

    In Data Remixing the sample is then learnt from that modality alone. Its code has a fixed number of classes.

    Args:
        logits: of each modality alone, of one shape.

    Returns:
        The place of the modality in `logits`, detached; the first of several that tie. A NaN counts as hardest.

    Example:
        >>> audio, video = torch.tensor([[9.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 5.0]])
        >>> remix_assign({"audio": audio, "video": video})
        tensor([1, 0])

    Method:
        Name: Data Remixing
        Paper: ICML 2025
        Equation: assignment by divergence from uniform
        Hook: which samples are drawn
        Cost: an evaluation an epoch
        Modalities: any
        Test: tests/oracles/test_sampling.py
    """
    expect(isinstance(logits, Mapping), "logits", "a mapping from names to logits", logits, error=TypeError)
    expect(len(logits) > 0, "logits", "at least one modality", {})
    first = next(iter(logits.values()))
    for name, each in logits.items():
        expect_floating(f"logits[{name!r}]", each, "of shape (b, c)", ndim=2)
        expect_shape(f"logits[{name!r}]", each, tuple(first.shape))
        expect_device(f"logits[{name!r}]", each, first)
    entropies = [torch.special.entr(widen(each.detach()).softmax(-1)).sum(-1) for each in logits.values()]
    return torch.stack(entropies).argmax(0)


def remix_batches(
    assignment: Int[Tensor, "b"],
    batch_size: int,
    *,
    drop_last: bool = False,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Batches of one modality each, in random order: ``DataLoader(dataset, batch_sampler=remix_batches(...))``.

    The modality of a batch is ``assignment[batch[0]]``; mask the others. Each modality has at most one batch that is
    not full. The list is one epoch's; draw the next one anew.

    Args:
        assignment: modality of each sample, see :func:`remix_assign`.
        batch_size: number of samples in a batch.
        drop_last: leave batches out that are not full.
        generator: draws the order of the samples and of the batches; None for the global stream.

    Example:
        >>> assignment = torch.tensor([0, 1, 1, 0, 1])
        >>> batches = remix_batches(assignment, 2, generator=torch.Generator().manual_seed(0))
        >>> sorted(sorted(assignment[batch].tolist()) for batch in batches)
        [[0, 0], [1], [1, 1]]
    """
    expect(isinstance(assignment, Tensor), "assignment", "an integer tensor of shape (b,)", assignment, error=TypeError)
    expect(assignment.ndim == 1, "assignment", "an integer tensor of shape (b,)", assignment)
    expect_labels("assignment", assignment, assignment.shape[0], MANY)
    expect_count("batch_size", batch_size)
    expect_generator("generator", generator)
    device = generator.device if generator is not None else assignment.device
    order = torch.randperm(assignment.shape[0], generator=generator, device=device).to(assignment.device)
    drawn = assignment[order]
    batches: list[list[int]] = []
    for modality in drawn.unique():
        chunks = order[drawn == modality].split(batch_size)
        batches += [chunk.tolist() for chunk in chunks if len(chunk) == batch_size or not drop_last]
    return [batches[place] for place in torch.randperm(len(batches), generator=generator, device=device).tolist()]
