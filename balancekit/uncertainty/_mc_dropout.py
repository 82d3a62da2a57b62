"""Monte-Carlo dropout: the outputs of a model whose dropout stays on.

Gal & Ghahramani 2016 (arXiv 1506.02142), Eq. 6; with weights ω_t that dropout has thinned,

    samples[t] = model(inputs; ω_t),    t = 1 … s

Which modules are switched on decides whether anything is random. Attention, LSTM, stochastic depth and functional
dropout look at their own ``training`` flag, and the fused path of ``nn.TransformerEncoderLayer`` looks only at the
layer's; to switch on modules of type Dropout alone gives these models zero uncertainty. So *every* module gets
``training = True``, except normalisation with running statistics, which would estimate them anew.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves, tree_map

from balancekit._checks import expect, expect_count
from balancekit._keys import keep_keys
from balancekit._random import sample_streams, stream_states
from balancekit.uncertainty._samples import copy_tensors, join_samples


class MCDropout(nn.Module):
    """Outputs of `model` under `samples` draws of its dropout, stacked along a new first axis.

    Modes and buffers are as before afterwards, also when the model raises, and the mode that the model is in does not
    matter. Gradients flow; call it under ``torch.no_grad()`` where none are needed. Compile the model, not this loop.

    `chunk_size` samples travel in one pass, as one batch "(s b)": every input tensor whose first axis has the length of
    the batch is repeated, and the batch is the first axis of the first tensor that has axes, positional arguments
    first. Anything else is handed over as it is. So chunks need inputs and outputs with the batch as the *first* axis,
    and a model that treats its rows independently. There are always two passes of equal shape: rows within one pass may
    differ by rounding alone, so only passes show whether a model that never drew from a global stream is random.

    With a `generator`, one seed is drawn from it and the global streams are restored; each pass is seeded by the index
    of its first sample. Equal generators give equal samples only with equal chunks; with chunks of one, the first
    samples stay the same when `samples` grows. Without a generator, the global streams advance as in training.

    Args:
        model: any module; its state-dict keys stay as they are.
        samples: number of draws s, at least 2.
        chunk_size: largest number of samples in one pass.
        exclude: module types and modules of `model` that run in eval mode, with all that they contain: auxiliary heads,
            code books, whatever does more than draw in train mode.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
        >>> samples = MCDropout(model, samples=10)(torch.ones(2, 4), generator=torch.Generator().manual_seed(0))
        >>> samples.shape, bool(samples.std(0).min() > 0), model.training
        (torch.Size([10, 2, 3]), True, False)
    """

    def __init__(
        self,
        model: nn.Module,
        samples: int = 20,
        *,
        chunk_size: int = 1,
        exclude: Sequence[type[nn.Module] | nn.Module] = (),
    ) -> None:
        expect(isinstance(model, nn.Module), "model", "an nn.Module", model, error=TypeError)
        expect_count("samples", samples, low=2)
        expect_count("chunk_size", chunk_size)
        expect(isinstance(exclude, list | tuple), "exclude", "a list or tuple", exclude, error=TypeError)
        inside = set(model.modules())
        for item in exclude:
            is_type = isinstance(item, type) and issubclass(item, nn.Module)
            expect(is_type or isinstance(item, nn.Module), "exclude", "module types and modules", item, error=TypeError)
            expect(is_type or item in inside, "exclude", "modules that are part of the model", item)
        super().__init__()
        self.model = model
        self.samples = samples
        self.chunk_size = chunk_size
        self.exclude = tuple(exclude)
        keep_keys(self, "model")

    def forward(self, *args: Any, generator: torch.Generator | None = None, **kwargs: Any) -> Any:
        """Call the model `samples` times with these arguments.

        Returns:
            The model's output with every tensor "b ..." replaced by its samples "s b ...".

        Raises:
            RuntimeError: if nothing in the model is random: no global stream advanced, and all passes are bit-equal.
        """
        is_generator = generator is None or isinstance(generator, torch.Generator)
        expect(is_generator, "generator", "a torch.Generator or None", generator, error=TypeError)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        batch = next((tensor.shape[0] for tensor in tensors if tensor.ndim), -1)
        chunk = min(self.chunk_size, self.samples // 2)
        expect(chunk == 1 or batch >= 0, "chunk_size", "1 for inputs without a batch", self.chunk_size)

        devices = {tensor.device for tensor in [*tensors, *self.model.parameters(), *self.model.buffers()]}
        passes: list[Any] = []
        with _dropout_on(self.model, self.exclude), sample_streams(generator, devices) as start:
            start(0)
            before = stream_states(devices)
            passes.append(self._pass((args, kwargs), chunk, batch))
            drew = any(not torch.equal(a, b) for a, b in zip(before, stream_states(devices), strict=True))
            for t in range(chunk, self.samples, chunk):
                start(t)
                passes.append(self._pass((args, kwargs), min(chunk, self.samples - t), batch))
            samples = join_samples(passes)  # before the buffers come back: an output may be one
        if not drew:
            _expect_different(passes)
        return samples

    def _pass(self, inputs: Any, size: int, batch: int) -> Any:
        """Draw `size` samples at once."""
        if size == 1:
            args, kwargs = copy_tensors(inputs)
            return tree_map(lambda y: y[None] if isinstance(y, Tensor) else y, self.model(*args, **kwargs))

        def repeat(x: Tensor) -> Tensor:
            return x.repeat(size, *[1] * (x.ndim - 1)) if x.ndim and x.shape[0] == batch else x.clone()

        def split(y: Any) -> Any:
            if not isinstance(y, Tensor):
                return y
            rows = f"outputs whose first axis is {size} samples times {batch} rows"
            expect(y.ndim > 0 and y.shape[0] == size * batch, "chunk_size", rows, y)
            return y.unflatten(0, (size, batch))

        args, kwargs = copy_tensors(inputs, repeat)
        return tree_map(split, self.model(*args, **kwargs))


@contextmanager
def _dropout_on(model: nn.Module, exclude: Sequence[type[nn.Module] | nn.Module]) -> Iterator[None]:
    """Train mode for all but normalisation with running statistics and `exclude`; modes and buffers come back."""
    types = (_NormBase, *(item for item in exclude if isinstance(item, type)))
    quiet = {
        inner
        for module in model.modules()
        if isinstance(module, types) or module in exclude
        for inner in module.modules()
    }
    modes = [(module, module.training) for module in model.modules()]
    buffers = []
    for module in model.modules():
        there = [buffer for buffer in module._buffers.values() if buffer is not None]
        buffers.append(
            (module, dict(module._buffers), [(buffer, buffer.clone(), _version(buffer)) for buffer in there])
        )
    try:
        for module, _ in modes:
            module.training = module not in quiet
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, names, contents in buffers:
                module._buffers.clear()
                module._buffers.update(names)  # as they were: also those that were None, and none besides
                for buffer, before, version in contents:
                    if _version(buffer) != version:  # one that nobody wrote to may be part of a graph
                        buffer.copy_(before)


def _version(tensor: Tensor) -> object:
    """Changes with every write into `tensor`; where torch does not count (inference mode), always."""
    return object() if torch.is_inference_mode_enabled() else tensor._version


def _expect_different(passes: Sequence[Any]) -> None:
    """Raise if all passes are equal, NaN included. An empty batch is evidence of nothing."""
    first, *others = ([leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)] for outputs in passes)
    if not any(leaf.numel() for leaf in first):
        return
    alike = [other for other in others if [leaf.shape for leaf in other] == [leaf.shape for leaf in first]]
    if all(_same(a, b) for other in alike for a, b in zip(first, other, strict=True)):
        raise RuntimeError(
            f"model: expected samples that differ, found {len(passes)} bit-equal passes: no part of it that runs in "
            "train mode draws random numbers"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())  # NaN differs from itself
