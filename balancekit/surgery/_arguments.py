"""What the Rebalancer and a call of it accept."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from balancekit._checks import describe, expect, is_real
from balancekit.branches import Branches
from balancekit.surgery._rule import Rule

Losses = Mapping[str, Tensor]
Facts = Mapping[str, Tensor | float]


def check_call(
    names: Sequence[str], rest: str, total: Tensor | None, losses: Losses, facts: Mapping[str, Facts | None]
) -> None:
    """Raise unless total and losses are scalars of known branches, and each fact has a value for each loss.

    Args:
        names: the branches.
        rest: what parameters outside the branches get.
        total: the loss of the whole model, or None.
        losses: the unimodal losses.
        facts: "confidence" and "speed", each None or a value per modality.
    """
    if total is None:
        expect(rest == "sum", "total", 'a loss, since rest="total"', None)
    else:
        _expect_scalar("total", total)
    _expect_names("losses", losses, names)
    for name, loss in losses.items():
        _expect_scalar(f"losses[{name!r}]", loss)
    for argument, values in facts.items():
        if values is None:
            continue
        _expect_names(argument, values, names)
        missing = [name for name in losses if name not in values]
        expect(not missing, argument, f"a value for each of {list(losses)}", list(values))
        for name in losses:
            item = values[name]
            fits = item.ndim <= 1 and item.numel() > 0 if isinstance(item, Tensor) else is_real(item)
            expect(fits, f"{argument}[{name!r}]", 'a number, or a tensor () or "b"', item)
            if argument == "confidence" and not isinstance(item, Tensor):  # no tensor is read; what is not finite shows
                fits = 0 <= item <= 1 or not math.isfinite(item)
                expect(fits, f"{argument}[{name!r}]", "a number in [0, 1]", item)


def check_options(rule: Rule, per: str, independent: bool, low_memory: bool, every: int) -> None:
    """Raise where an option contradicts the granule or the rule."""
    rows = f"False with {rule} and per={per!r}, which need separate passes"
    expect(not independent or (per != "model" and not rule.uses_total), "independent", rows, independent)
    expect(not low_memory or per != "model", "low_memory", "False with per='model', which needs all rows", low_memory)
    expect(every == 1 or per != "tensor", "every", "1 with per='tensor', where holding weights saves no pass", every)


def check_proxy(branches: Branches, proxy: Branches, per: str) -> None:
    """Raise unless `proxy` has the names of `branches` and some of their tensors."""
    expect(isinstance(proxy, Branches), "proxy", "a Branches", proxy, error=TypeError)
    expect(per != "tensor", "proxy", "None with per='tensor': a proxy stands for a whole branch", proxy)
    expect(set(proxy) == set(branches), "proxy", f"the names {list(branches)}", list(proxy))
    owners = branches.owners()
    strays = sorted({name for leaf, name in proxy.owners().items() if owners.get(leaf) != name})
    expect(not strays, "proxy", "tensors of the branch that they stand for", strays)


def _expect_names(argument: str, values: object, names: Sequence[str]) -> None:
    expect(isinstance(values, Mapping), argument, "a mapping with branch names as keys", values, error=TypeError)
    assert isinstance(values, Mapping)
    unknown = [name for name in values if name not in names]
    expect(not unknown, argument, f"names among {list(names)}", unknown)


def _expect_scalar(argument: str, value: object) -> None:
    fits = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
    if not fits:
        raise (ValueError if isinstance(value, Tensor) else TypeError)(
            f"{argument}: expected a floating-point scalar tensor, found {describe(value)}"
        )
