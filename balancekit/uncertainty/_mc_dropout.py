"""Monte-Carlo dropout: the outputs of a model whose dropout stays on.

Gal & Ghahramani 2016 (arXiv 1506.02142), Eq. 6; with weights ω_t that dropout has thinned,

    samples[t] = model(inputs; ω_t),    t = 1 … s

Which modules are switched on decides whether anything is random. Attention, LSTM, stochastic depth and functional
dropout look at their own ``training`` flag, and the fused path of ``nn.TransformerEncoderLayer`` looks only at the
layer's; to switch on modules of type Dropout alone gives these models zero uncertainty. So *every* module gets
``training = True``, except normalisation with running statistics, which would estimate them anew.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from balancekit._checks import describe, expect, expect_choice, expect_count
from balancekit._keys import keep_keys
from balancekit._random import draw_seed, seeded_streams
from balancekit.uncertainty._modes import Kept
from balancekit.uncertainty._passes import Passes, call_mapped, call_once
from balancekit.uncertainty._samples import Inputs, join_samples


class MCDropout(nn.Module):
    """Outputs of `model` under `samples` draws of its dropout, stacked along a new first axis.

    Modes and buffers are as before afterwards, also when the model raises, and the mode that the model is in does not
    matter; every pass starts from the same buffers. Gradients flow; call it under ``torch.no_grad()`` where none are
    needed.

    `chunk_size` samples travel in one pass. With ``backend="loop"`` they are one batch "(s b)": every input tensor
    whose first axis has the length of the batch is repeated, and the batch is the first axis of the first tensor that
    has axes, positional arguments first. Anything else is handed over as it is. So chunks need inputs and outputs with
    the batch as the *first* axis, and a model that treats its rows independently. With ``backend="vmap"`` there need be
    no batch, and what comes before the first dropout is computed once a pass. What ``torch.vmap`` cannot map is an
    error: a dropout inside ``nn.LSTM``; and where nothing was dropped before it, in-place dropout and attention's own.

    On a CPU, all samples in one pass pay for small models, the more the smaller, and take 10 to 20 times the memory; a
    transformer of width 128 gains nothing. Compiled vmap is the fastest form of all but the smallest. Figures in
    docs/rooms/uncertainty.md.

    Where dropout sits in the last layers only, hand over the rest as `encoder`: it runs once a call, in eval mode, and
    its output is the model's input. :meth:`compile` compiles one pass, and neither the encoder nor this loop.

    With a `generator`, one seed is drawn from it and the global streams are restored; each pass is seeded by the index
    of its first sample. Equal generators give equal samples only with equal chunks; with chunks of one, the first
    samples stay the same when `samples` grows. Without a generator, the global streams advance as in training.

    Args:
        model: any module; its state-dict keys stay as they are.
        samples: number of draws s, at least 2.
        chunk_size: largest number of samples in one pass. One needs the least memory.
        exclude: module types and modules of `model` that run in eval mode, with all that they contain: auxiliary heads,
            code books, whatever does more than draw in train mode.
        encoder: what comes before `model`. A tensor that it returns is the model's only argument, a tuple its
            positional arguments, and a dict its keyword arguments. Its state-dict keys begin with "encoder.".
        backend: how the samples of one pass travel.

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
        encoder: nn.Module | None = None,
        backend: Literal["loop", "vmap"] = "loop",
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
        is_encoder = encoder is None or isinstance(encoder, nn.Module)
        expect(is_encoder, "encoder", "an nn.Module or None", encoder, error=TypeError)
        expect_choice("backend", backend, ("loop", "vmap"))
        expect(backend == "loop" or chunk_size > 1, "chunk_size", 'at least 2 for backend="vmap"', chunk_size)
        super().__init__()
        self.model = model
        self.samples = samples
        self.chunk_size = chunk_size
        self.exclude = tuple(exclude)
        self.encoder = encoder
        self.backend = backend
        self._compiled = None
        keep_keys(self, "model")

    def forward(self, *args: Any, generator: torch.Generator | None = None, **kwargs: Any) -> Any:
        """Draw `samples` samples with these arguments.

        Returns:
            The model's output with every tensor "b ..." replaced by its samples "s b ...".

        Raises:
            RuntimeError: if nothing in the model is random: no global stream advanced, and all passes are bit-equal;
                with ``backend="vmap"``, if the samples within each pass are bit-equal.
        """
        passes = self._passes(args, kwargs, generator)
        parts = [part for size, starts in passes.plan for part in passes.draw(size, starts)]
        passes.expect_random()
        return join_samples(parts, self._join())

    def stream(self, *args: Any, generator: torch.Generator | None = None, **kwargs: Any) -> Iterator[Any]:
        """Draw the same samples as a call, one pass at a time, and keep none.

        Between the passes, modes, buffers and, with a `generator`, the global streams are as before, so the iterator
        may be left at any point. The arguments must stay as they are until then.

        Yields:
            The model's output with every tensor "b ..." replaced by the pass's samples "s b ...", s at most
            `chunk_size`.

        Raises:
            RuntimeError: as a call, after the last pass.
        """
        return self._stream(self._passes(args, kwargs, generator))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile one pass. The encoder, and what switches modes and seeds, stay outside.

        Args:
            *args: as for ``torch.compile``.
            **kwargs: as for ``torch.compile``. With ``backend="vmap"``, `dynamic` is False unless given, a graph for
                each shape: in one for all shapes ``torch.vmap`` of dropout raises.
        """
        if self.backend == "vmap":
            kwargs = {"dynamic": False} | kwargs
        self._compiled = torch.compile(call_mapped if self.backend == "vmap" else call_once, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_compiled": None}  # what is compiled can be neither copied nor pickled

    def _passes(self, args: tuple[Any, ...], kwargs: dict[str, Any], generator: torch.Generator | None) -> Passes:
        if generator is not None:
            is_generator = isinstance(generator, torch.Generator)
            expect(is_generator, "generator", "a torch.Generator or None", generator, error=TypeError)
        inputs, seed = Inputs(args, kwargs), None
        if self.encoder is not None:
            seed = draw_seed(generator)
            inputs = self._encode(self.encoder, inputs, seed)
        passes = Passes(
            self.model,
            self.exclude,
            self._run,
            inputs,
            samples=self.samples,
            chunk=min(self.chunk_size, self.samples),
            mapped=self.backend == "vmap",
        )
        passes.seed = draw_seed(generator) if seed is None else seed
        return passes

    def _stream(self, passes: Passes) -> Iterator[Any]:
        for size, starts in passes.plan:
            for t in starts:
                yield join_samples(passes.draw(size, [t]), self._join())
        passes.expect_random()

    def _run(self, size: int) -> Callable[..., Any]:
        if self._compiled is not None:
            return partial(self._compiled, self.model, size)
        return partial(call_mapped, self.model, size) if self.backend == "vmap" else self.model

    def _join(self) -> Callable[[Any], Tensor]:
        return torch.stack if self.chunk_size == 1 else torch.cat

    def _encode(self, encoder: nn.Module, inputs: Inputs, seed: int | None) -> Inputs:
        """Run the encoder; return the model's arguments."""
        kept = Kept(encoder)
        try:
            kept.eval()
            with seeded_streams(seed, kept.devices().union([x.device for x in inputs.tensors()])) as start:
                start(0)
                args, kwargs, _ = inputs.fresh()
                output = kept.restore_buffers(encoder(*args, **kwargs))
        finally:
            kept.restore()
        if isinstance(output, Tensor):
            return Inputs((output,), {})
        if isinstance(output, tuple):
            return Inputs(tuple(output), {})
        if isinstance(output, dict) and all(isinstance(key, str) for key in output):
            return Inputs((), dict(output))
        raise TypeError(f"encoder: expected a tensor, a tuple or a dict with strings as keys, found {describe(output)}")
