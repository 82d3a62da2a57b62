"""The loops of torch-uncertainty and baal, from their installed distributions.

The packages do not import beside a CPU build of torch without torchvision, lightning and more. So single files are
executed, under their own names, with stand-ins for what these files import and the measured functions do not use.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

Call = Callable[[], Any]


def home(package: str) -> Path | None:
    """Where the package is installed, found without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


@contextmanager
def importable(root: Path, *packages: str, stubs: tuple[str, ...] = ()) -> Iterator[None]:
    """In the block, files of these packages are imported without what their ``__init__`` imports."""
    modules: dict[str, Any] = {stub: MagicMock() for stub in stubs}
    for package in packages:
        module = ModuleType(package)
        module.__path__ = [str(root.joinpath(*package.split(".")[1:]))]
        modules[package] = module
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)
    try:
        yield
    finally:  # what they import from elsewhere stays: NumPy cannot be imported twice
        for name in [name for name in sys.modules if name in modules or name.startswith(f"{packages[0]}.")]:
            del sys.modules[name]
        sys.modules.update(before)


def torch_uncertainty(model: nn.Module, members: list[nn.Module], x: Tensor, samples: int) -> dict[str, Call]:
    """MC dropout in a loop and as one repeated batch; an ensemble in a loop."""
    root = home("torch_uncertainty")
    if root is None:
        return {}
    with importable(root, "torch_uncertainty", "torch_uncertainty.methods"):
        dropout = importlib.import_module("torch_uncertainty.methods.mc_dropout")
        ensembles = importlib.import_module("torch_uncertainty.methods.deep_ensembles")
    loop = dropout.mc_dropout(model, samples, on_batch=False).eval()
    repeat = dropout.mc_dropout(model, samples, on_batch=True).eval()
    ensemble = ensembles.deep_ensembles(members).eval()
    return {"loop": lambda: loop(x), "repeat": lambda: repeat(x), "ensemble": lambda: ensemble(x)}


def baal(model: nn.Module, members: list[nn.Module], x: Tensor, samples: int) -> dict[str, Call]:
    """MC dropout in a loop and replicated in memory; an ensemble by loading one state after the other."""
    root = home("baal")
    if root is None:
        return {}
    stubs = ("structlog", "baal.active", "baal.active.dataset", "baal.active.dataset.base", "baal.metrics")
    packages = ("baal", "baal.utils", "baal.bayesian")
    with importable(root, *packages, stubs=(*stubs, "baal.utils.metrics", "baal.metrics.mixin")):
        sys.modules["baal.metrics.mixin"].MetricMixin = type("MetricMixin", (), {"add_metric": lambda *_: None})
        dropout = importlib.import_module("baal.bayesian.dropout")
        wrapper = importlib.import_module("baal.modelwrapper")
        sys.modules["baal"].ModelWrapper = wrapper.ModelWrapper  # type: ignore[attr-defined]
        ensembles = importlib.import_module("baal.ensemble")
    patched = dropout.patch_module(model, inplace=False).eval()
    loop = wrapper.ModelWrapper(patched, SimpleNamespace(use_cuda=False, replicate_in_memory=False))
    repeat = wrapper.ModelWrapper(patched, SimpleNamespace(use_cuda=False, replicate_in_memory=True))
    states = [{name: tensor.clone() for name, tensor in member.state_dict().items()} for member in members]

    def swap() -> Any:
        return ensembles.ensemble_prediction(x, members[0], states, cuda=False)

    return {
        "loop": lambda: loop.predict_on_batch(x, samples),
        "repeat": lambda: repeat.predict_on_batch(x, samples),
        "ensemble": swap,
    }


def plain(model: nn.Module, x: Tensor, samples: int) -> Call:
    """What both loops come down to."""
    model.train()
    return lambda: torch.cat([model(x) for _ in range(samples)])
