"""The Function that joins the user's backward.

Its separate passes are seeded with the incoming gradient, so a loss scale reaches them. The losses travel as saved
tensors: autograd lets go of them when it lets go of any other saved tensor.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from balancekit.surgery._engine import Plan, operate


class Rebalance(torch.autograd.Function):
    """The identity on `value`, whose backward also seeds losses and hands gradients to the leaves of the plan.

    Args of ``apply``:
        plan: what the backward does.
        value: what is returned, as a copy; its own graph gets the incoming gradient.
        roots: the losses that separate passes start from, by row.
        seeded: the rows that the user's backward starts from as well.
        *inputs: the losses of those rows, the leaves of the plan that take part here, and leaves that get nothing:
            DistributedDataParallel waits for them.
    """

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, value: Tensor, roots: dict[int, Tensor], seeded: Sequence[int], *inputs: Tensor
    ) -> Tensor:
        ctx.plan, ctx.rows, ctx.seeded = plan, tuple(roots), seeded
        ctx.dtypes = [loss.dtype for loss in inputs[: len(seeded)]]
        ctx.leaves = len(inputs) - len(seeded)
        ctx.save_for_backward(*roots.values())
        ctx.starts_from_saved = True  # whoever follows the gradient must look there too
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (incoming,) = gradients
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph: expected False, found True; surgery is first-order, its result cannot be differentiated"
            )
        plan: Plan = ctx.plan
        if plan.division.parts and _in_compiled_autograd():
            raise RuntimeError(
                "backward: expected ordinary autograd, found compiled autograd, which cannot run separate passes; "
                "leave torch._dynamo.config.compiled_autograd False, or compile the model alone"
            )
        with torch.no_grad(), torch.autocast(incoming.device.type, enabled=False):
            out = operate(plan, dict(zip(ctx.rows, ctx.saved_tensors, strict=True)), incoming)
            seeds = [
                (incoming * plan.factors[r] * plan.sigma[r]).to(dtype)
                for r, dtype in zip(ctx.seeded, ctx.dtypes, strict=True)
            ]
        waited_for = [None] * (ctx.leaves - len(out))
        return (None, incoming, None, None, *seeds, *out, *waited_for)


def _in_compiled_autograd() -> bool:
    compiler = sys.modules.get("torch._dynamo.compiled_autograd")  # not imported, not running
    return compiler is not None and compiler.in_compiled_autograd_region
