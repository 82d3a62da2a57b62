"""Named, disjoint groups of parameters, and the features that they produce."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from balancekit._checks import expect
from balancekit.branches._capture import REMEDY, REPLICAS, Features, Hook, Pool, check_run, compiled_modules
from balancekit.branches._targets import Group, Place, locate


class Branches(Mapping[str, tuple[nn.Parameter, ...]]):
    """Named, disjoint groups of a model's parameters, one a modality.

    A mapping: ``branches["rgb"]`` is the tuple of the branch's parameters. Modules are what is stored; parameters are
    looked up at every call, so that frozen, re-assigned and re-parametrised tensors stay right.

    Args:
        model: the model, or a wrapper of it (compiled, DistributedDataParallel).
        groups: for each branch one target or several. A target is a module of the model, one of its parameters, or the
            exact dotted name of either, looked up once, now. The first module of a group that has a forward is the one
            whose output is the branch's feature.
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
        if isinstance(model, nn.DataParallel):
            raise TypeError(f"model: expected a module of one process, found {REPLICAS}")
        expect(isinstance(groups, Mapping), "groups", "a mapping from names to targets", groups, error=TypeError)
        expect(len(groups) > 0, "groups", "at least one branch", {})
        self.model = model
        self._places: dict[str, tuple[Place, ...]] = {}
        for name, targets in groups.items():
            expect(isinstance(name, str), "groups", "names that are strings", name, error=TypeError)
            several = targets if isinstance(targets, list | tuple) else [targets]
            self._places[name] = tuple(locate(model, name, target) for target in several)
            found = [target if isinstance(target, str) else type(target).__name__ for target in several]
            expect(any(True for _ in self[name]), f"groups[{name!r}]", "targets with at least one parameter", found)
        self.owners()
        if isinstance(pool, Mapping):
            unknown = sorted(set(pool) - set(groups))
            expect(not unknown, "pool", f"names among {list(groups)}", unknown)
        for each in pool.values() if isinstance(pool, Mapping) else [pool]:
            expect(each is None or callable(each), "pool", "a callable, or one per branch", each, error=TypeError)
        compiled = compiled_modules(model)
        self._pools = {name: pool.get(name) if isinstance(pool, Mapping) else pool for name in groups}
        self._hooks: list[Hook] = []
        self._handles = Handles()
        for name, places in self._places.items():
            module = next((place.module for place in places if place.runs()), None)
            if module is not None:
                hook = Hook(name, compiled_before=module in compiled)
                self._handles.append(module.register_forward_hook(hook))
                self._hooks.append(hook)
        self._remove_hooks_with_self()

    def _remove_hooks_with_self(self) -> None:
        weakref.finalize(self._handles, _remove, list(self._handles))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remove_hooks_with_self()

    def __getitem__(self, name: str) -> tuple[nn.Parameter, ...]:
        return tuple(dict.fromkeys(parameter for place in self._places[name] for parameter in place.parameters()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    __eq__: ClassVar[Callable[[object, object], bool]] = object.__eq__  # not a comparison of tensors
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
    def capture(self) -> Iterator[Mapping[str, Tensor]]:
        """Capture the feature of each branch that runs inside the ``with`` block, by name, in the branches' order.

        A branch that does not run is absent from the mapping. The features keep their graph, and can be read inside the
        block and after it.

        Raises:
            RuntimeError: on leaving the block, if a captured module ran twice, if no branch ran at all, or if the hook
                of a branch was compiled away; the message says what to do.
            TypeError: on leaving the block, if a feature is no tensor and the branch has no pool.
        """
        if any(hook.store is not None for hook in self._hooks):
            raise RuntimeError("capture: expected one open capture at a time, found a capture inside a capture")
        stores: dict[str, dict[str, Any]] = {hook.name: {} for hook in self._hooks}
        for hook in self._hooks:
            hook.store, hook.runs = stores[hook.name], 0
        features = Features(stores, self._pools)
        try:
            yield features
        finally:
            for hook in self._hooks:
                hook.store = None
        if not features:
            raise RuntimeError(
                f"capture: expected the model to run inside the block, found no feature. If it ran: {REMEDY}."
            )
        for hook in self._hooks:
            check_run(hook, features)

    def param_groups(self, **defaults: Any) -> list[dict[str, Any]]:
        """One optimizer group per branch and one, named "rest", for every other parameter of the model.

        Args:
            **defaults: entries for every group, such as ``lr=1e-3``; change single groups afterwards.
        """
        owners = self.owners()
        rest = [parameter for parameter in self.model.parameters() if parameter not in owners]
        groups = [*self.items(), ("rest", rest)]
        return [{"name": name, "params": list(parameters), **defaults} for name, parameters in groups]


class Handles(list[Any]):
    """Of hooks, which go with the last that has them: a shallow copy has the same."""


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()
