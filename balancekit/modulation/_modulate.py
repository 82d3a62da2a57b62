"""Scale gradients where a branch ends: exact, without parameter names, for a batch or for each sample.

    ∂L/∂z_m ← k_m · ∂L/∂z_m

Where the feature z_m is all that the rest of the model sees of branch m, this multiplies the gradient of each of its
parameters by k_m. Under Adam a constant factor on a gradient changes next to nothing: see :func:`scale_updates`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from balancekit._checks import expect, expect_floating, is_real
from balancekit._typing import Float
from balancekit.modulation._acted import tell
from balancekit.modulation._arguments import expect_mapping


def modulate(
    features: Mapping[str, Float[Tensor, "b *_"]], coefficients: Mapping[str, Tensor | float], loss: Float[Tensor, ""]
) -> None:
    """Let the coming ``loss.backward()`` multiply what reaches each feature by the modality's coefficient.

    Call it after the forward pass: the features are those that the model went on with, such as
    ``branches.capture()`` holds. A coefficient of 1 changes nothing, bit for bit.

    Args:
        features: z_m, one row a sample.
        coefficients: for each feature that is to be scaled a number, (), or one for each sample, "b".
        loss: what backward is about to be called on. It is asked whether it depends on the features at all.

    Raises:
        ValueError: for a name that is no feature, and for a feature through which the loss does not pass: of another
            forward pass, of a frozen branch, or made by a pool while the model went on with what it was made of.

    Example:
        >>> x, w = torch.ones(2, 1), torch.ones(1, 1, requires_grad=True)
        >>> z = x @ w
        >>> loss = z.sum()
        >>> modulate({"audio": z}, {"audio": torch.tensor([0.5, 0.0])}, loss)
        >>> loss.backward()
        >>> w.grad
        tensor([[0.5000]])
    """
    expect_floating("loss", loss, "with one value")
    expect(loss.numel() == 1, "loss", "a tensor with one value", loss)
    expect_mapping("features", features)
    expect_mapping("coefficients", coefficients)
    if not torch.is_grad_enabled() or not loss.requires_grad:
        return
    unknown = [name for name in coefficients if name not in features]
    expect(not unknown, "coefficients", f"names among {list(features)}", unknown)
    acting = {name: features[name] for name in coefficients}
    for name, k in coefficients.items():
        z = acting[name]
        expect(isinstance(z, Tensor), f"features[{name!r}]", "a tensor", z, error=TypeError)
        fits = k.ndim == 0 or k.shape == z.shape[:1] if isinstance(k, Tensor) else is_real(k)
        fits = fits and not (isinstance(k, Tensor) and k.is_complex())
        expect(fits, f"coefficients[{name!r}]", f"a number, a tensor () or one of shape {tuple(z.shape[:1])}", k)
    lost = sorted(set(acting) - passed(loss, acting))
    expect(not lost, "features", "tensors that the loss depends on, which the model went on with; not so", lost)
    for name, k in coefficients.items():
        handles = [acting[name].register_hook(_times(name, k))]
        if acting[name].is_leaf:  # it outlives its graph
            handles.append(acting[name].register_hook(partial(_remove, handles)))
    tell("backward", coefficients)


def passed(loss: Tensor, tensors: Mapping[str, Tensor]) -> set[str]:
    """The names of the tensors that the gradient of `loss` passes through; the walk ends when all are found."""
    goals = {_key(t.grad_fn or t, t.output_nr): name for name, t in tensors.items() if t.requires_grad}
    found: set[str] = set()
    stack: list[tuple[Any, int]] = [(loss.grad_fn or loss, loss.output_nr)]
    seen: set[Any] = set()
    entered: set[Any] = set()
    while stack and len(found) < len(goals):
        node, slot = stack.pop()
        place = _key(getattr(node, "variable", node), slot)
        if place in seen:
            continue
        seen.add(place)
        if place in goals:
            found.add(goals[place])
        if node not in entered:
            entered.add(node)
            stack.extend((below, index) for below, index in getattr(node, "next_functions", ()) if below is not None)
            if getattr(node, "starts_from_saved", False):  # gradient surgery, whose passes start there
                stack.extend((root.grad_fn or root, root.output_nr) for root in node.saved_tensors)
    return found


def _key(node: Any, slot: int) -> tuple[int, int]:
    return id(node), slot


def _remove(handles: list[Any], _: Tensor) -> None:
    for handle in handles:
        handle.remove()


def _times(name: str, k: Tensor | float) -> Any:
    def scaled(gradient: Tensor) -> Tensor:
        factor = k.detach().to(gradient.device, gradient.dtype) if isinstance(k, Tensor) else k
        if isinstance(factor, Tensor) and factor.ndim:
            factor = factor.reshape(-1, *[1] * (gradient.ndim - 1))
        found = gradient * factor
        if torch.is_anomaly_enabled() and bool(found.isnan().any()) and bool(gradient.isfinite().all()):
            # a hook has no name there: the node before it, which is the user's, would be blamed
            raise RuntimeError(f"modulate: coefficients[{name!r}]: expected finite numbers, found one that makes NaN")
        return found

    return scaled
