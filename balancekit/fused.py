"""The hot functions, compiled on first use: one pass over memory where the plain functions take many.

Each has the arguments, the result and the documentation of the function of its name in ``balancekit``::

    from balancekit import fused
    confidence = fused.dropout_confidence(tokens)

``torch.compile(fullgraph=True)`` does the work. The first call takes seconds, and so does the first with another dtype,
number of axes, `p` or `samples`; sizes may vary from the second on. Nothing is compiled at import. A call with a
`generator`, which a graph cannot hold, runs the plain function, and one inside a compiled model becomes a part of its
graph. Where no compiler works, and from the 65th form of a call on, there is a warning, and the plain function runs.
"""

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from balancekit import prototypes, uncertainty

__all__ = [
    "dropout_confidence",
    "dropout_std",
    "expected_entropy",
    "linear_dropout_moments",
    "mutual_information",
    "predictive_entropy",
    "prototype_entropy",
    "prototype_logits",
    "prototypical_cross_entropy",
]

P = ParamSpec("P")
R = TypeVar("R")

LIMIT = 64  # graphs a function: each p, number of samples and dtype is one of its own

_backend = "inductor"
_works = True  # until a compilation has failed


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled when it is first called."""

    @functools.cache
    def compiled() -> Callable[P, R]:
        # torch's overloads lack the last argument
        return torch.compile(function, fullgraph=True, backend=_backend, recompile_limit=LIMIT)  # pyright: ignore[reportCallIssue]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        global _works
        if torch.compiler.is_compiling() or not _works or kwargs.get("generator") is not None:
            return function(*args, **kwargs)
        from torch._dynamo import exc  # not at import: it loads the compiler

        try:
            return compiled()(*args, **kwargs)
        except exc.FailOnRecompileLimitHit:
            text = f"balancekit.fused.{function.__name__} goes on uncompiled: {LIMIT} forms of its call are compiled"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            return function(*args, **kwargs)
        except exc.Unsupported as error:
            unsupported = error
        except exc.BackendCompilerFailed as error:
            _works = False
            reason = str(error.inner_exception).partition("\n")[0]
            warnings.warn(f"balancekit.fused goes on without a compiler: {reason}", RuntimeWarning, stacklevel=2)
            return function(*args, **kwargs)
        function(*args, **kwargs)  # a wrong argument says so itself
        raise unsupported

    return call


dropout_confidence = _compiled(uncertainty.dropout_confidence)
dropout_std = _compiled(uncertainty.dropout_std)
expected_entropy = _compiled(uncertainty.expected_entropy)
linear_dropout_moments = _compiled(uncertainty.linear_dropout_moments)
mutual_information = _compiled(uncertainty.mutual_information)
predictive_entropy = _compiled(uncertainty.predictive_entropy)
prototype_entropy = _compiled(prototypes.prototype_entropy)
prototype_logits = _compiled(prototypes.prototype_logits)
prototypical_cross_entropy = _compiled(prototypes.prototypical_cross_entropy)
