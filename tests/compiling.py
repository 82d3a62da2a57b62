"""Full-graph compilation in tests that treat warnings as errors."""

import warnings
from collections.abc import Callable
from typing import Any

import torch


def fullgraph(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under torch.compile(fullgraph=True), without torch's deprecation warnings about its own internals."""
    compiled = torch.compile(function, fullgraph=True)

    def call(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            return compiled(*args, **kwargs)

    return call
