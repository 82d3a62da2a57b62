"""Deep ensembles: the outputs of models that were initialised, and are to be trained, independently.

Lakshminarayanan et al. 2017 (arXiv 1612.01474), Algorithm 1; with members of parameters θ_t,

    samples[t] = model(inputs; θ_t),    t = 1 … s
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from balancekit._checks import expect, expect_choice, expect_count
from balancekit._random import forked_streams, sample_seed
from balancekit.uncertainty._members import expect_alike, expect_different, expect_disjoint
from balancekit.uncertainty._samples import NEVER, Inputs, join_samples
from balancekit.uncertainty._vmap import map_samples


class DeepEnsemble(nn.Module):
    """Outputs of all `members` for the same inputs, stacked along a new first axis.

    The ensemble is an ordinary module: one loss over the samples trains every member, and ``eval()`` reaches them all.
    To train the members one by one, use ``ensemble.members[i]``.

    Args:
        members: modules with the same inputs and outputs, and no common parameter.
        backend: "loop" calls one member after the other. "vmap" calls all at once, which pays for tiny members that are
            compiled (:meth:`compile`) or in training, and loses elsewhere on a CPU; members must then be of one class,
            in one mode, with tensors of the same shapes. Without randomness, both agree to rounding, in outputs,
            gradients and buffers. For wider members the compiled loop is as fast or faster; figures in
            docs/rooms/uncertainty.md.

    Example:
        >>> ensemble = DeepEnsemble.build(lambda: nn.Linear(4, 3), 5, seed=0)
        >>> ensemble(torch.ones(2, 4)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(self, members: Iterable[nn.Module], *, backend: Literal["loop", "vmap"] = "loop") -> None:
        expect(isinstance(members, Iterable), "members", "modules", members, error=TypeError)
        members = list(members)
        expect(len(members) > 0, "members", "at least one module", members)
        for member in members:
            expect(isinstance(member, nn.Module), "members", "modules", member, error=TypeError)
        expect_choice("backend", backend, ("loop", "vmap"))
        expect_disjoint(members)
        if backend == "vmap":
            expect_alike(members)
        super().__init__()
        self.members = nn.ModuleList(members)
        self.backend = backend

    @classmethod
    def build(
        cls,
        factory: Callable[[], nn.Module],
        size: int,
        *,
        seed: int,
        backend: Literal["loop", "vmap"] = "loop",
    ) -> "DeepEnsemble":
        """Build `size` members with a seed of their own each; torch's global streams are as before afterwards.

        A factory is called, rather than one model copied and reset, because bare parameters and attention have no reset
        that reaches them.

        Args:
            factory: builds one member, drawing its initial values from torch's global streams.
            size: number of members s.
            seed: any integer; neighbouring seeds share no member.
            backend: as for the class.

        Raises:
            ValueError: if no parameter differs between the members, although they have parameters that vary.

        Warns:
            UserWarning: if some parameters differ and others, not constant, are bit-equal in two members. That is right
                for pretrained weights and fixed tables, and wrong for anything that ought to be random.
        """
        expect(callable(factory), "factory", "a callable that builds one member", factory, error=TypeError)
        expect_count("size", size)
        expect(isinstance(seed, int) and not isinstance(seed, bool), "seed", "an integer", seed, error=TypeError)
        members = []
        with forked_streams(_accelerators()) as reseed:
            for t in range(size):
                reseed(sample_seed(seed, t))
                members.append(factory())
        ensemble = cls(members, backend=backend)
        expect_different(members)
        return ensemble

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call every member with these arguments.

        Returns:
            A member's output with every tensor "b ..." replaced by the samples "s b ...".
        """
        inputs = Inputs(args, kwargs)
        if self.backend == "vmap":
            return self._vmap(inputs)
        outputs, counts = [], NEVER
        for member in self.members:
            for tensor, count in counts:  # in line: small members take microseconds
                if tensor._version != count:
                    args, kwargs, counts = inputs.fresh()
                    break
            outputs.append(member(*args, **kwargs))
        return join_samples(outputs, torch.stack)

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Call one member after the other with these arguments, and keep no output.

        The backend plays no part. The arguments must stay as they are until the last member was called.

        Yields:
            A member's output with every tensor "b ..." replaced by "1 b ...".
        """
        inputs = Inputs(args, kwargs)
        for member in self.members:
            args, kwargs, _ = inputs.fresh()
            yield join_samples([member(*args, **kwargs)], torch.stack)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the call of all members, as any module's; with ``backend="vmap"`` see :meth:`MCDropout.compile`."""
        if self.backend == "vmap":
            kwargs = {"dynamic": False} | kwargs
        super().compile(*args, **kwargs)

    def add(self, member: nn.Module) -> None:
        """Append a member, of which the same holds as of those at construction; an optimizer has to be told."""
        expect(isinstance(member, nn.Module), "member", "an nn.Module", member, error=TypeError)
        expect_disjoint([*self.members, member], "member")
        if self.backend == "vmap":
            expect_alike([self.members[0], member], "member")
        self.members.append(member)

    def _vmap(self, inputs: Inputs) -> Any:
        modes = [[module.training for module in member.modules()] for member in self.members]
        expect(modes.count(modes[0]) == len(modes), "members", 'one mode for backend="vmap"', "several")
        # Stacked at every call: a stack that is kept would miss later training, and cut the graph.
        parameters = _stack(dict(member.named_parameters()) for member in self.members)
        buffers = _stack(dict(member.named_buffers()) for member in self.members)
        args, kwargs, _ = inputs.fresh()

        def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Any:
            return functional_call(self.members[0], (parameters, buffers), args, kwargs)

        samples = map_samples(call, parameters, buffers)
        if any(modes[0]):
            with torch.no_grad():
                for t, member in enumerate(self.members):
                    for name, buffer in member.named_buffers():
                        buffer.copy_(buffers[name][t])
        return samples


def _stack(states: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    first, *others = states
    return {name: torch.stack([tensor, *(other[name] for other in others)]) for name, tensor in first.items()}


def _accelerators() -> list[torch.device]:
    """All devices besides the CPU that a factory may draw on."""
    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return [torch.device(kind.type, index) for index in range(torch.accelerator.device_count())]
