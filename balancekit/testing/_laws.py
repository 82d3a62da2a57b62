"""The laws of a rule, one function each; the first sentence of its docstring is the law."""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from balancekit.surgery import Rule, Step
from balancekit.testing._cases import Case


def _scaled(case: Case, c: float) -> Step:
    return case.step._replace(losses=case.step.losses * c, speed=case.step.speed * c)


def form(rule: Rule, case: Case, tolerance: float) -> None:
    """Weights are "g r", finite, and of the dtype and device of the Gram matrices."""
    for dtype in (torch.float32, torch.float64):
        gram, step = case.to(dtype).gram, case.to(dtype).step
        weights = rule(gram, step)
        found, wanted = ((x.shape, x.dtype, x.device.type) for x in (weights, gram[..., 0]))
        _require(found == wanted, f"expected {wanted}, found {found}")
        _require(bool(weights.isfinite().all()), f"expected finite weights, found {weights.tolist()}")


def power_of_two(rule: Rule, case: Case, tolerance: float) -> None:
    """Losses times a power of two leave the weights bit for bit."""
    for dtype in (torch.float32, torch.float64):
        typed = case.to(dtype)
        weights = rule(typed.gram, typed.step)
        for c in (2.0**-9, 2.0**5):
            step = _scaled(typed, c)
            assert_close(rule(typed.gram * c**2, step), weights, rtol=0, atol=0)
            assert_close(rule(typed.gram, step._replace(units=step.units * c)), weights, rtol=0, atol=0)


def common_scale(rule: Rule, case: Case, tolerance: float) -> None:
    """Losses times any factor leave the weights as they are."""
    weights = rule(case.gram, case.step)
    for c in (1e-3, 0.7, 90.0):
        step = _scaled(case, c)
        _same(rule(case.gram * c**2, step), weights, tolerance)
        _same(rule(case.gram, step._replace(units=step.units * c)), weights, tolerance)


def relabelling(rule: Rule, case: Case, tolerance: float) -> None:
    """Relabelling the modalities relabels the weights."""
    weights = rule(case.gram, case.step)
    index = torch.arange(len(case.step.present), device=case.rows.device)
    for order in (index.roll(1), index.flip(0)):
        rows = torch.cat([index[:1], 1 + order])
        facts = (field[order] for field in case.step[:4])
        step = Step(*facts, owner=order.argsort()[case.step.owner], units=case.step.units)
        moved = Case(case.rows[:, rows], step)
        _same(rule(moved.gram, step), weights[:, rows], tolerance)


def branches_alone(rule: Rule, case: Case, tolerance: float) -> None:
    """The granules of a branch have the same weights with and without those of the others."""
    weights = rule(case.gram, case.step)
    for owner in case.step.owner.unique():
        (index,) = torch.where(case.step.owner == owner)
        alone = case.on(index)
        _same(rule(alone.gram, alone.step), weights[index], tolerance)


def order_of_granules(rule: Rule, case: Case, tolerance: float) -> None:
    """Granules in another order have their weights in that order."""
    order = torch.arange(len(case.rows), device=case.rows.device).flip(0)
    turned = case.on(order)
    _same(rule(turned.gram, turned.step), rule(case.gram, case.step)[order], tolerance)


def absent(rule: Rule, case: Case, tolerance: float) -> None:
    """An absent modality has weight 0."""
    weights = rule(case.gram, case.step)[:, 1:]
    _require(bool((weights[:, ~case.step.present] == 0).all()), f"found {weights.tolist()}")


def one_row(rule: Rule, case: Case, tolerance: float) -> None:
    """A granule that one loss alone reaches has the same weights however large that gradient is."""
    m = len(case.step.present)
    index = torch.arange(m, device=case.rows.device)
    step = case.step._replace(owner=index, units=torch.ones_like(case.step.losses))
    gram = torch.zeros_like(case.gram[:m])
    for r in range(0 if rule.uses_total else 1, 1 + m):
        gram.zero_()[:, r, r] = 1.0
        weights = rule(gram, step)
        for square in (1e-8, 0.3, 1e6):
            gram[:, r, r] = square * (1 + index)
            _same(rule(gram, step), weights, tolerance)


def not_finite(rule: Rule, case: Case, tolerance: float) -> None:
    """A gradient that is not finite makes the combined gradient so."""
    for r in range(0 if rule.uses_total else 1, case.rows.shape[1]):
        for bad in (torch.inf, torch.nan) if r == 0 or case.step.present[r - 1] else ():
            rows = case.rows.clone()
            rows[:, r] = bad
            weights = rule(rows @ rows.mT, case.step)
            combined = (weights.unsqueeze(-1) * rows).sum(-2)
            _require(not bool(combined.isfinite().any()), f"row {r} is {bad}, found {combined.tolist()}")


def no_host_read(rule: Rule, case: Case, tolerance: float) -> None:
    """Nothing is read on the host, and everything is on the device of the Gram matrices.

    Tried on a device without values, and with an eye on what makes CUDA wait although it hands no value over.
    """
    step = Step(*(field.to("meta") for field in case.step))
    with _NoWaiting():
        rule(case.gram.to("meta"), step)


def compiled(rule: Rule, case: Case, tolerance: float) -> None:
    """Compiled in one graph, the rule gives the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler warns of torch's own deprecations
        compiled = torch.compile(lambda gram, step: rule(gram, step), fullgraph=True)
        weights = compiled(case.gram, case.step)
    _same(weights, rule(case.gram, case.step), tolerance)


def _same(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert_close(found, expected, rtol=tolerance, atol=tolerance)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


class _NoWaiting(TorchDispatchMode):
    """Fails on solvers that check their result on the host, and on masks as indices."""

    _WAITING = ("_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple) else ()
        masked = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
        _require(name not in self._WAITING, f"{name} makes a GPU wait")
        _require(not masked, f"{name} with a mask makes a GPU wait; use torch.where")
        return func(*args, **(kwargs or {}))
