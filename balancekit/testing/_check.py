"""Run all laws on drawn cases, and say which one breaks, and where."""

from collections.abc import Callable, Sequence

import torch

from balancekit._checks import expect, expect_count, expect_number
from balancekit.surgery import Rule
from balancekit.testing import _laws as laws
from balancekit.testing._cases import Case, draw

Law = Callable[[Rule, Case, float], None]


def check_rule(
    rule: Rule,
    *,
    modalities: Sequence[int] = (1, 2, 3, 4),
    draws: int = 8,
    seed: int = 0,
    tolerance: float = 1e-6,
    host_reads: bool = False,
    compiles: bool = False,
    device: torch.device | str = "cpu",
) -> None:
    """Raise an AssertionError at the first law that `rule` breaks.

    Args:
        rule: an object with `uses_total` and a call.
        modalities: how many there are; every number is tried.
        draws: drawn cases for each number of modalities; their kinds alternate, there are four.
        seed: of the draws.
        tolerance: relative and absolute, of the laws that hold up to rounding, in float64.
        host_reads: allow the rule to read values on the host, which makes a GPU wait in every step.
        compiles: also ask for ``torch.compile(rule, fullgraph=True)``, which takes seconds.
        device: where the rule is tried.
    """
    made = not isinstance(rule, type) and isinstance(rule, Rule)
    expect(made, "rule", "an object with uses_total and a call", rule, error=TypeError)
    several = isinstance(modalities, Sequence) and not isinstance(modalities, str) and len(modalities) > 0
    expect(several, "modalities", "a list of at least one number", modalities, error=TypeError)
    for m in modalities:
        expect_count("modalities", m)
    expect_count("draws", draws)
    expect_count("seed", seed, low=0)
    expect_number("tolerance", tolerance, low=0.0)
    chosen: list[Law] = [
        laws.form,
        laws.power_of_two,
        laws.common_scale,
        laws.relabelling,
        laws.branches_alone,
        laws.order_of_granules,
        laws.absent,
        laws.one_row,
        laws.not_finite,
    ]
    chosen += [] if host_reads else [laws.no_host_read]
    for law in chosen:
        for m in modalities:
            for number in range(draws):
                _try(law, rule, draw(rule, m, number, seed, device), tolerance)
    for m in modalities if compiles else ():
        _try(laws.compiled, rule, draw(rule, m, 0, seed, device), tolerance)


def _try(law: Law, rule: Rule, case: Case, tolerance: float) -> None:
    try:
        law(rule, case, tolerance)
    except Exception as error:
        says = (law.__doc__ or "").split(".")[0]
        facts = "\n".join(f"  {name} = {value.tolist()}" for name, value in case.step._asdict().items())
        raise AssertionError(
            f"law: {says[:1].lower()}{says[1:]}\nrule: {rule!r}\n{type(error).__name__}: {error}\n"
            f"gradients, a granule a line, row 0 the total's:\n"
            + "\n".join(f"  {granule}" for granule in case.rows.tolist())
            + f"\nstep:\n{facts}"
        ) from error
