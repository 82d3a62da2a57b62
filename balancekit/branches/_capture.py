"""Forward hooks that keep the output of each branch while a capture is open."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from balancekit._checks import expect

Pool = Callable[[Any], Tensor]

REMEDY = (
    "a forward hook that is registered after a module was compiled and called is silently ignored. Make Branches "
    "before torch.compile, or compile the branches separately, or hand over features of your own"
)

REPLICAS = "torch.nn.DataParallel, which runs copies of the model in threads; use DistributedDataParallel"


class Hook:
    """The forward hook of one branch: keeps the module's output while a capture is open.

    Each has a dict of its own, so that a compiler that traces one hook does not look at the features of the others.
    """

    def __init__(self, name: str, compiled_before: bool) -> None:
        self.name = name
        self.compiled_before = compiled_before
        self.store: dict[str, Any] | None = None
        self.runs = 0
        self.has_delivered = False

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.store is not None:
            if getattr(module, "_is_replica", False):
                raise RuntimeError(f"capture: expected the model itself to run, found {REPLICAS}")
            self.store["output"] = output
            self.runs += 1
            self.has_delivered = True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "store": None, "runs": 0}  # activations are neither copied nor saved


class Features(Mapping[str, Any]):
    """The features of one capture, live: a pool is applied when a feature is first read.

    Not in the hook: a checkpointed region that is run again must not find less to do than the first time.
    """

    def __init__(self, stores: dict[str, dict[str, Any]], pools: Mapping[str, Pool | None]) -> None:
        self._stores, self._pools = stores, pools

    def __getitem__(self, name: str) -> Any:
        store, pool = self._stores[name], self._pools[name]
        if "feature" not in store:
            if "output" not in store:
                raise KeyError(name)
            store["feature"] = store["output"] if pool is None else pool(store["output"])
        return store["feature"]

    def __iter__(self) -> Iterator[str]:
        return (name for name, store in self._stores.items() if "output" in store)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


def check_run(hook: Hook, features: Mapping[str, Any]) -> None:
    """Raise if the branch ran twice, gave no tensor, or ran without its hook."""
    if hook.runs > 1:
        raise RuntimeError(f"capture: expected the module of branch {hook.name!r} to run once, found {hook.runs} runs")
    if hook.runs == 0 and hook.compiled_before and not hook.has_delivered:
        raise RuntimeError(
            f"capture: expected a feature of branch {hook.name!r}, found none. It lies in a module that was "
            f"compiled before Branches was made, and {REMEDY}."
        )
    expect(
        hook.runs == 0 or isinstance(features[hook.name], Tensor),
        f"the output of branch {hook.name!r}",
        "a tensor, or a pool that makes one of it",
        features.get(hook.name),
        error=TypeError,
    )


def compiled_modules(model: nn.Module) -> set[nn.Module]:
    """Every module that runs inside a region which ``torch.compile`` has already wrapped."""
    return {
        inner
        for module in model.modules()
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None
        for inner in module.modules()
    }
