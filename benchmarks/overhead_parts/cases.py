"""The three models that most sections measure: late fusion, coupled by adapters, and a frozen trunk with adapters."""

import torch

from .frozen import Frozen
from .problem import Problem, problem
from .streams import Streams

NAMES = ("rgb", "depth", "ir")
GRID = 8  # 64 patches and a class token
TOKENS = 1 + GRID**2


def late(*, width: int = 256, depth: int = 6, grid: int = GRID, device: str = "cpu") -> tuple[str, Problem]:
    """Three encoders that meet in the head alone."""
    torch.manual_seed(0)
    model = Streams(NAMES, width=width, depth=depth, heads=4).to(device)
    return "late fusion", problem(model, batch=8, tokens=1 + grid**2)


def coupled(*, width: int = 256, depth: int = 6, grid: int = GRID, device: str = "cpu") -> tuple[str, Problem]:
    """The same encoders with adapters in every block."""
    torch.manual_seed(0)
    model = Streams(NAMES, width=width, depth=depth, heads=4, exchange=range(depth)).to(device)
    return "coupled by adapters", problem(model, batch=8, tokens=1 + grid**2)


def frozen(*, width: int = 320, depth: int = 6, grid: int = GRID, device: str = "cpu") -> tuple[str, Problem]:
    """One frozen transformer for all modalities, adapters beside every MLP."""
    torch.manual_seed(0)
    model = Frozen(NAMES, width=width, depth=depth, heads=4, grid=grid).to(device)
    return "frozen trunk, adapters only", problem(model, batch=8, tokens=1 + grid**2)


def sizes(made: Problem) -> str:
    """How large the model is."""
    trained = made.trained()
    millions = [sum(p.numel() for p in parameters) / 1e6 for parameters in (made.model.parameters(), trained)]
    return f"{millions[0]:.1f} M parameters, {millions[1]:.1f} M of them trained, in {len(trained)} tensors"
