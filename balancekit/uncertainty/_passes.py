"""The passes of one call of Monte-Carlo dropout: how their samples travel, and how they are seeded."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from balancekit._checks import expect
from balancekit._random import forked_streams, seeded_streams, stream_states
from balancekit.uncertainty._evidence import Evidence
from balancekit.uncertainty._modes import Kept
from balancekit.uncertainty._samples import NEVER, Inputs
from balancekit.uncertainty._vmap import map_samples


def call_once(model: nn.Module, size: int, /, *args: Any, **kwargs: Any) -> Any:
    """One sample "b ...", or, of arguments that are repeated, `size` samples "(s b) ..."."""
    return model(*args, **kwargs)


def call_mapped(model: nn.Module, size: int, /, *args: Any, **kwargs: Any) -> Any:
    """`size` samples "s b ...", mapped over an axis that no argument has: what comes before dropout runs once."""
    return map_samples(lambda _: model(*args, **kwargs), torch.empty(size))


class Passes:
    """The passes of one call.

    Args:
        model: whose dropout is switched on.
        exclude: module types and modules in it that stay in eval mode.
        run: from the number of samples in a pass to the function that makes it.
        inputs: the call's arguments.
        samples: how many in all.
        chunk: how many in one pass.
        mapped: whether `run` draws several samples from single arguments; otherwise these are repeated.

    Attributes:
        plan: passes of equal size: how many samples each draws, and the indices of their first samples.
        seed: of the call; None to draw from the global streams as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        exclude: Sequence[type[nn.Module] | nn.Module],
        run: Callable[[int], Callable[..., Any]],
        inputs: Inputs,
        *,
        samples: int,
        chunk: int,
        mapped: bool,
    ) -> None:
        self._model, self._exclude, self._run, self._inputs = model, exclude, run, inputs
        self._evidence = Evidence()
        self._mapped = mapped
        self._batch = None
        if chunk > 1 and not mapped:
            self._batch = next((tensor.shape[0] for tensor in inputs.tensors() if tensor.ndim), None)
            expect(self._batch is not None, "chunk_size", "1 for inputs without a batch", chunk)
        rest = samples % chunk
        self.plan = [(chunk, range(0, samples - rest, chunk))]
        if rest:
            self.plan.append((rest, range(samples - rest, samples, rest)))
        # Streams tell that a pass was random; two passes do so at less cost on a CPU, but elsewhere one has to wait.
        one_pass, remote = len(self.plan[0][1]) == 1, not all(tensor.is_cpu for tensor in inputs.tensors())
        self._watch = (one_pass or remote) and not mapped
        self.seed: int | None = None

    def draw(self, size: int, starts: Iterable[int]) -> list[Any]:
        """Switch dropout on, and make the passes of `size` samples each that start with these."""
        inputs, seed, run, outputs = self._inputs, self.seed, self._run(size), []
        if self._batch is not None:
            inputs.repeat(size, self._batch)
        kept = Kept(self._model)
        watch = self._watch and not self._evidence.random
        devices = self._devices(kept) if watch or seed is not None else ()
        try:
            kept.train_dropout(self._exclude)
            with seeded_streams(seed, devices) as start:
                args, kwargs, counts = (), {}, NEVER
                guarded, before = watch or kept.has_buffers or seed is not None, []
                for t in starts:  # little in here, and in line, since a small model's pass takes microseconds
                    for tensor, count in counts:
                        if tensor._version != count:
                            args, kwargs, counts = inputs.fresh()
                            break
                    if guarded:
                        start(t)
                        before = stream_states(devices) if watch else []
                    output = run(*args, **kwargs)
                    if guarded:
                        watch = watch and self._evidence.see_streams(before, stream_states(devices))
                        output = kept.restore_buffers(output)
                    outputs.append(output)
        finally:
            kept.restore()
        if self._mapped:
            self._evidence.see_mapped(outputs)
        else:
            self._evidence.see(outputs)
        return outputs if self._batch is None else [self._split(output, size, self._batch) for output in outputs]

    def expect_random(self) -> None:
        """Raise if nothing was. Passes may agree by chance: one more shows whether a global stream advances."""
        if not self._evidence.random and not self._mapped:
            devices = self._devices(Kept(self._model))
            self.seed = None
            with forked_streams(devices):
                before = stream_states(devices)
                self.draw(self.plan[0][0], [0])
                self._evidence.see_streams(before, stream_states(devices))
        self._evidence.expect_random()

    def _devices(self, kept: Kept) -> set[torch.device]:
        return kept.devices().union([tensor.device for tensor in self._inputs.tensors()])

    @staticmethod
    def _split(output: Any, size: int, batch: int) -> Any:
        def split(y: Any) -> Any:
            if not isinstance(y, Tensor):
                return y
            rows = f"outputs whose first axis is {size} samples times {batch} rows"
            expect(y.ndim > 0 and y.shape[0] == size * batch, "chunk_size", rows, y)
            return y.unflatten(0, (size, batch))

        return tree_map(split, output)
