"""Says when balancing does nothing, and why. It reads on the host, once for every time that numbers are due."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from balancekit.diagnostics._factors import Factors
from balancekit.modulation import Modulated

CANCELLED = (
    "its gradient is scaled by {:.3g}, and the optimizer makes {:.2f} of the update without: it divides a constant "
    "factor out again; use scale_updates"
)
UNAPPLIED = (
    "coefficients are computed, but no actuator gets them and no gradient changes between backward and step: they are "
    "never assigned, or to parameters by a name that none has. If they act in another way, say so by history.applied"
)


class Verdict(NamedTuple):
    """Something has done nothing for long enough; see :class:`~balancekit.diagnostics.Alarm`."""

    cause: str
    where: str
    text: str


class Judge:
    """Counts how often in a row each thing does nothing."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.in_a_row: Counter[tuple[str, str]] = Counter()
        self.former: list[float] = []

    def again(self, cause: str, where: str, so: bool) -> bool:
        """Count one more, or start over; whether it is often enough."""
        self.in_a_row[cause, where] = self.in_a_row[cause, where] + 1 if so else 0
        return self.in_a_row[cause, where] >= self.patience

    def cancelled(self, factors: Factors, numbers: Mapping[str, Tensor]) -> Iterator[Verdict]:
        """Gradients that were scaled for nothing."""
        for name, measured in numbers.items():
            m = name.removeprefix("efficacy/")
            factor = factors.gradient(m) if m != name else None
            if factor is not None:
                k, efficacy = float(factor), float(measured)
                if self.again("cancelled", m, abs(k - 1) > 0.1 and abs(efficacy - 1) < 0.05):
                    yield Verdict("cancelled", m, CANCELLED.format(k, efficacy))

    def coefficients(
        self, found: Modulated, *, applied: bool, changes: Mapping[str, Tensor] | None
    ) -> Iterator[Verdict]:
        """Coefficients that ask for nothing, and those that nobody applies.

        `changes`: of gradients between backward and step; None where there is no step to be seen.
        """
        table = found.coefficients.reshape(-1, found.coefficients.shape[-1])
        low, high = table.amin(0).tolist(), table.amax(0).tolist()
        everyone = ", ".join(found.names)
        one = all(a == b == 1 for a, b in zip(low, high, strict=True))
        if self.again("one", everyone, one):
            yield Verdict("one", everyone, "every coefficient is exactly 1: nothing is modulated")
        same = not one and len(low) > 1 and max(high) == min(low) and low == self.former
        self.former = low
        if self.again("constant", everyone, same):
            text = f"all modalities have the coefficient {low[0]:.4g}, and it does not change"
            yield Verdict("constant", everyone, text)
        if changes is not None and not applied:
            sizes = [c for c in map(float, changes.values()) if math.isfinite(c)]
            if len(sizes) < 2:
                return  # nothing to compare
            applied = max(sizes) > (1 + 1e-3) * min(sizes)  # by hand, after backward
        if self.again("unapplied", everyone, not one and not applied):
            yield Verdict("unapplied", everyone, UNAPPLIED)
