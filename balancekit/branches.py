"""Which parameters, and which features, belong to which modality.

A model with several modalities has one *branch* per modality: the encoder of the images, the encoder of the depth maps,
and whatever else only serves that modality. :class:`Branches` names them. It is a mapping from the branch's name to its
parameters, it captures the feature that each branch produces in a forward pass, and it splits the parameters for the
optimizer. Nothing in the model changes: no key of its state dict, no line of its forward.

:class:`MultiBranch` is the same as a wrapper that returns output and features together.
"""

import weakref
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from balancekit._checks import expect
from balancekit._keys import keep_keys

Target = nn.Module | nn.Parameter | str
Group = Target | list[Target] | tuple[Target, ...]
Pool = Callable[[Any], Tensor]

_REMEDY = (
    "a forward hook that is registered after a module was compiled and called is silently ignored. Make Branches "
    "before torch.compile, or compile the branches separately, or hand over features of your own"
)


class _Place(NamedTuple):
    """A module, or one of its parameters by name. Tensors are looked up when they are needed, never kept."""

    module: nn.Module
    attribute: str | None

    def parameters(self) -> Iterator[nn.Parameter]:
        if self.attribute is None:
            yield from self.module.parameters()
        elif (parameter := self.module._parameters.get(self.attribute)) is not None:
            yield parameter
        else:  # re-parametrised (weight_norm and kin): the parameters behind it
            yield from self.module.get_submodule(f"parametrizations.{self.attribute}").parameters()


class _Tap:
    """The forward hook of one branch: keeps the feature while a capture is open.

    Each has a dict of its own, so that a compiler that traces one hook does not look at the features of the others.
    """

    def __init__(self, name: str, pool: Pool | None, compiled_before: bool) -> None:
        self.name, self.pool = name, pool
        self.compiled_before = compiled_before
        self.store: dict[str, Any] | None = None
        self.runs = 0
        self.has_delivered = False

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.store is not None:
            self.store[self.name] = output if self.pool is None else self.pool(output)
            self.runs += 1
            self.has_delivered = True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "store": None, "runs": 0}  # activations are neither copied nor saved


class Branches(Mapping[str, tuple[nn.Parameter, ...]]):
    """Named, disjoint groups of a model's parameters, one a modality.

    A mapping: ``branches["rgb"]`` is the tuple of the branch's parameters. Modules are what is stored; parameters are
    looked up at every call, so that frozen, re-assigned and re-parametrised tensors stay right.

    Args:
        model: the model, or a wrapper of it (compiled, DistributedDataParallel).
        groups: for each branch one target or several. A target is a module of the model, one of its parameters, or the
            exact dotted name of either. The first module of a group is the one whose output is the branch's feature.
        pool: makes the feature "b d" of the captured module's output (tokens, a tuple, a ``ModelOutput``): one callable
            for all, or one per branch. By default the output is the feature.

    Raises:
        ValueError: for a name or an object that the model does not have, for a group without parameters, and for a
            parameter that two branches own (tied weights count: it is the tensor that matters).

    Example:
        >>> import torch
        >>> model = nn.ModuleDict({"rgb": nn.Linear(4, 2), "depth": nn.Linear(3, 2), "head": nn.Linear(4, 2)})
        >>> branches = Branches(model, {"rgb": "rgb", "depth": model["depth"]})
        >>> [tuple(p.shape) for p in branches["depth"]]
        [(2, 3), (2,)]
        >>> with branches.capture() as features:
        ...     _ = model["rgb"](torch.ones(5, 4))
        >>> {name: tuple(feature.shape) for name, feature in features.items()}  # depth did not run
        {'rgb': (5, 2)}
        >>> [(group["name"], len(group["params"])) for group in branches.param_groups()]
        [('rgb', 2), ('depth', 2), ('rest', 2)]
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Mapping[str, Group],
        *,
        pool: Pool | Mapping[str, Pool] | None = None,
    ) -> None:
        expect(isinstance(model, nn.Module), "model", "a torch.nn.Module", model, error=TypeError)
        expect(isinstance(groups, Mapping), "groups", "a mapping from names to targets", groups, error=TypeError)
        expect(len(groups) > 0, "groups", "at least one branch", {})
        self.model = model
        self._places: dict[str, tuple[_Place, ...]] = {}
        for name, targets in groups.items():
            expect(isinstance(name, str), "groups", "names that are strings", name, error=TypeError)
            several = targets if isinstance(targets, list | tuple) else [targets]
            self._places[name] = tuple(_locate(model, name, target) for target in several)
            found = [target if isinstance(target, str) else type(target).__name__ for target in several]
            expect(any(True for _ in self[name]), f"groups[{name!r}]", "targets with at least one parameter", found)
        self.owners()
        if isinstance(pool, Mapping):
            unknown = sorted(set(pool) - set(groups))
            expect(not unknown, "pool", f"names among {list(groups)}", unknown)
        for each in pool.values() if isinstance(pool, Mapping) else [pool]:
            expect(each is None or callable(each), "pool", "a callable, or one per branch", each, error=TypeError)
        compiled = _compiled_modules(model)
        self._taps: list[_Tap] = []
        handles = []
        for name, places in self._places.items():
            module = next((place.module for place in places if place.attribute is None), None)
            if module is not None:
                of_branch = pool.get(name) if isinstance(pool, Mapping) else pool
                tap = _Tap(name, of_branch, compiled_before=module in compiled)
                handles.append(module.register_forward_hook(tap))
                self._taps.append(tap)
        self._handles = handles
        self._remove_hooks_with_self()

    def _remove_hooks_with_self(self) -> None:
        weakref.finalize(self, _remove, self._handles)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remove_hooks_with_self()

    def __getitem__(self, name: str) -> tuple[nn.Parameter, ...]:
        return tuple(dict.fromkeys(parameter for place in self._places[name] for parameter in place.parameters()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    __eq__ = object.__eq__  # not a comparison of tensors
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Branches({', '.join(f'{name}: {len(parameters)} tensors' for name, parameters in self.items())})"

    def owners(self) -> dict[Tensor, str]:
        """The branch of each owned parameter, as of now.

        Raises:
            ValueError: if two branches own one tensor.
        """
        owners: dict[Tensor, str] = {}
        for name, parameters in self.items():
            for parameter in parameters:
                if owners.setdefault(parameter, name) != name:
                    where = next(key for key, value in self.model.named_parameters() if value is parameter)
                    both = f"{owners[parameter]!r} and {name!r}"
                    raise ValueError(f"groups: expected disjoint branches, found {where!r} in both {both}")
        return owners

    @contextmanager
    def capture(self) -> Iterator[Mapping[str, Any]]:
        """Capture the feature of each branch that runs inside the ``with`` block, by name, in the branches' order.

        A branch that does not run is absent from the mapping. The features keep their graph, and can be read inside the
        block and after it.

        Raises:
            RuntimeError: on leaving the block, if a captured module ran twice, if no branch ran at all, or if the hook
                of a branch was compiled away; the message says what to do.
            TypeError: on leaving the block, if a feature is no tensor and the branch has no pool.
        """
        if any(tap.store is not None for tap in self._taps):
            raise RuntimeError("capture: expected one open capture at a time, found a capture inside a capture")
        for tap in self._taps:
            tap.store, tap.runs = {}, 0
        features = ChainMap(*(tap.store for tap in reversed(self._taps) if tap.store is not None))
        try:
            yield features
        finally:
            for tap in self._taps:
                tap.store = None
        for tap in self._taps:
            self._check(tap, features)

    def _check(self, tap: _Tap, features: Mapping[str, Any]) -> None:
        if not features:
            raise RuntimeError(
                f"capture: expected the model to run inside the block, found no feature. If it ran: {_REMEDY}."
            )
        if tap.runs > 1:
            raise RuntimeError(
                f"capture: expected the module of branch {tap.name!r} to run once, found {tap.runs} runs"
            )
        if tap.runs == 0 and tap.compiled_before and not tap.has_delivered:
            raise RuntimeError(
                f"capture: expected a feature of branch {tap.name!r}, found none. It lies in a module that was "
                f"compiled before Branches was made, and {_REMEDY}."
            )
        expect(
            tap.runs == 0 or isinstance(features[tap.name], Tensor),
            f"the output of branch {tap.name!r}",
            "a tensor, or a pool that makes one of it",
            features.get(tap.name),
            error=TypeError,
        )

    def param_groups(self, **defaults: Any) -> list[dict[str, Any]]:
        """One optimizer group per branch and one, named "rest", for every other parameter of the model.

        Args:
            **defaults: entries for every group, such as ``lr=1e-3``; change single groups afterwards.
        """
        owners = self.owners()
        rest = [parameter for parameter in self.model.parameters() if parameter not in owners]
        groups = [*self.items(), ("rest", rest)]
        return [{"name": name, "params": list(parameters), **defaults} for name, parameters in groups]


def _locate(model: nn.Module, branch: str, target: Target) -> _Place:
    argument = f"groups[{branch!r}]"
    if isinstance(target, str):
        path, _, leaf = target.rpartition(".")
        try:
            parent = model.get_submodule(path)
        except AttributeError:
            parent = nn.Module()
        child = getattr(parent, leaf, None) if target else model
        if isinstance(child, nn.Module):
            return _Place(child, None)
        expect(
            isinstance(child, nn.Parameter), argument, "the exact name of a module or parameter of the model", target
        )
        return _Place(parent, leaf)
    if isinstance(target, nn.Module):
        expect(any(target is module for module in model.modules()), argument, "a module of the model", target)
        return _Place(target, None)
    expect(isinstance(target, nn.Parameter), argument, "modules, parameters or their names", target, error=TypeError)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is target:
                return _Place(module, name)
    raise ValueError(f"{argument}: expected a parameter of the model, found a stranger of shape {tuple(target.shape)}")


def _compiled_modules(model: nn.Module) -> set[nn.Module]:
    """Every module that runs inside a region which ``torch.compile`` has already wrapped."""
    return {
        inner
        for module in model.modules()
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None
        for inner in module.modules()
    }


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()


class Output(NamedTuple):
    """What :class:`MultiBranch` returns: the model's own output, and the feature of each branch that ran."""

    output: Any
    features: dict[str, Tensor]


class MultiBranch(nn.Module):
    """A model that returns its output together with the feature of each branch.

    The same as ``with branches.capture() as features: output = model(x)``, as a module: for runtimes that see only what
    a forward returns (DistributedDataParallel with ``find_unused_parameters``). The model's state-dict keys stay.

    Args:
        model: as for :class:`Branches`.
        groups: as for :class:`Branches`.
        pool: as for :class:`Branches`.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
        >>> wrapped = MultiBranch(model, {"only": "0"})
        >>> output, features = wrapped(torch.ones(3, 4))
        >>> output.shape, features["only"].shape
        (torch.Size([3, 1]), torch.Size([3, 2]))
        >>> wrapped.state_dict().keys() == model.state_dict().keys()
        True
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Mapping[str, Group],
        *,
        pool: Pool | Mapping[str, Pool] | None = None,
    ) -> None:
        super().__init__()
        self.branches = Branches(model, groups, pool=pool)
        self.model = model
        keep_keys(self, "model")

    def forward(self, *args: Any, **kwargs: Any) -> Output:
        """Run the model on any inputs."""
        with self.branches.capture() as features:
            output = self.model(*args, **kwargs)
        return Output(output, dict(features))
