"""Listens to what balances a training, and says when it does nothing."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancekit._checks import expect, expect_choice, expect_count
from balancekit.branches import Branches
from balancekit.diagnostics._history import History
from balancekit.diagnostics._updates import Factors, Updates, norm
from balancekit.modulation import Acted, Modulated, Modulator, listening
from balancekit.surgery import Rebalancer, Surgery


@contextmanager
def watch(
    *sources: Modulator | Rebalancer,
    optimizer: Optimizer | None = None,
    branches: Branches | None = None,
    every: int = 20,
    patience: int = 10,
) -> Iterator["Watched"]:
    """Within the block, record what the sources find and the optimizer does, and raise an alarm where it is nothing.

    ==============================  =================================================================================
    of a :class:`Modulator`         ``score/m``, ``ratio/m``, ``coefficient/m``, the means over a batch where there is
                                    one a sample
    of a :class:`Rebalancer`        ``loss/m``, ``confidence/m``, ``cosine/a-b`` of the gradients where two losses meet,
                                    ``conflict/a-b``: the share of granules in which they point apart
    of the optimizer                ``update ratio/m``, ``gradient energy/m``, ``efficacy/m``
    ==============================  =================================================================================

    An alarm is a :class:`NullEffectWarning`, and stays in ``history.alarms``. It names its cause:

    ==============  ================================================================================================
    ``one``         every coefficient is exactly 1
    ``constant``    all modalities have one coefficient, and it does not change
    ``unapplied``   coefficients are computed, but no actuator gets them, and no gradient changes between backward and
                    step: they were never assigned, or to parameters by a name that none has
    ``cancelled``   gradients are scaled, and the optimizer makes the same update of them (see ``scale_updates``)
    ``no gradient`` a loss term given to ``history.term`` reaches no parameter of any branch
    ==============  ================================================================================================

    Args:
        sources: at most one of each kind.
        optimizer: its steps are the clock; without it the calls of the sources are.
        branches: of the optimizer's parameters; a Rebalancer brings its own.
        every: how often numbers are taken, in steps.
        patience: how many times in a row something must do nothing before the alarm.

    Example:
        >>> from balancekit.modulation import OGM
        >>> ogm, labels = OGM(alpha=0.8), torch.tensor([1])
        >>> logits = {"audio": torch.tensor([[0.0, 3.0]]), "video": torch.zeros(1, 2)}
        >>> with watch(ogm, every=1) as history:
        ...     k = ogm(logits, labels)
        >>> round(history.last["coefficient/audio"], 4)
        0.0906
    """
    for source in sources:
        fits = isinstance(source, Modulator | Rebalancer)
        expect(fits, "sources", "modulators or rebalancers", source, error=TypeError)
    kinds = [isinstance(source, Rebalancer) for source in sources]
    expect(len(set(kinds)) == len(kinds), "sources", "at most one of each kind", [type(s).__name__ for s in sources])
    expect_count("every", every)
    expect_count("patience", patience)
    if branches is None:
        branches = next((source.branches for source in sources if isinstance(source, Rebalancer)), None)
    expect(optimizer is None or branches is not None, "branches", "a Branches, as there is an optimizer", branches)
    history = Watched(optimizer, branches, every, patience)
    history._clock = next(iter(sorted(sources, key=lambda source: isinstance(source, Rebalancer))), None)
    with ExitStack() as stack:
        for source in sources:
            stack.callback(source.register_step_hook(partial(history._heard, source)).remove)  # type: ignore[arg-type]
        if optimizer is not None:
            stack.callback(optimizer.register_step_pre_hook(history._before).remove)
            stack.callback(optimizer.register_step_post_hook(history._after).remove)
        stack.callback(history._close)
        stack.enter_context(listening(history._acted))
        yield history


class Watched(History):
    """The history of a :func:`watch`."""

    def __init__(self, optimizer: Optimizer | None, branches: Branches | None, every: int, patience: int) -> None:
        super().__init__()
        self.every, self.patience = every, patience
        self._branches = branches
        self._updates = Updates(optimizer, branches) if optimizer is not None and branches is not None else None
        self._in_a_row: Counter[tuple[str, str]] = Counter()
        self._factors = Factors()  # what actuators did since the last step
        self._applied = False  # whether they did anything
        self._found: Modulated | None = None  # since the last step
        self._former: list[float] = []
        self._sizes: dict[str, dict[Tensor, Tensor]] = {}  # of gradients as backward left them
        self._handles: list[Any] = []
        self._alive: set[str] = set()  # loss terms that have shown a gradient
        self._change: dict[str, Tensor] = {}
        self._called = 0
        self._clock: Any = None  # whose calls are the steps, without an optimizer
        self._listen_to_gradients()

    @property
    def due(self) -> bool:
        """Whether numbers are taken in this step."""
        return self.step % self.every == 0

    def term(self, name: str, loss: Tensor) -> Tensor:
        """Return a term of the loss as it is, and raise the alarm if no parameter of a branch has a gradient from it.

        Until it has shown one, a backward pass of the term alone is made whenever numbers are due. Call it where the
        term is made, before :func:`~balancekit.modulation.modulate`.
        """
        if self.due:
            self.log({f"loss/{name}": loss})
        if self._branches is None or not torch.is_grad_enabled() or name in self._alive or not self.due:
            return loss
        leaves = [p for m in self._branches for p in self._branches[m] if p.requires_grad]
        if not leaves:
            return loss
        found: tuple[Tensor | None, ...] = ()
        if loss.requires_grad:
            found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        if any(g is not None and bool(g.any()) for g in found):
            self._alive.add(name)
        elif self._again("no gradient", name, True) or not loss.requires_grad:
            self.alarm("no gradient", name, "this loss term has no gradient in any branch: it trains nothing")
        return loss

    def _again(self, cause: str, where: str, so: bool) -> bool:
        """Count how often in a row; whether it is often enough."""
        self._in_a_row[cause, where] = self._in_a_row[cause, where] + 1 if so else 0
        return self._in_a_row[cause, where] >= self.patience

    # --- what is heard ---

    def applied(self, on: str, coefficients: Mapping[str, Tensor | float]) -> None:
        """Say that coefficients were applied, where no actuator of this library did: on "gradients" or "updates"."""
        expect_choice("on", on, ("gradients", "updates", "features"))
        self._acted(Acted(on, coefficients))

    def _acted(self, what: Acted) -> None:
        self._applied = True
        self._factors.add(what.on, what.coefficients)

    def _heard(self, source: Modulator | Rebalancer, what: Modulated | Surgery) -> None:
        if self._updates is None and self._found is not None and isinstance(what, Modulated):
            self._judge({})
            self.step += 1
        if self._updates is None and isinstance(what, Surgery) and self._clock is source:
            self.step += self._called
            self._called = 1
        if isinstance(what, Modulated):
            self._found = what
        if not self.due:
            return
        if isinstance(what, Modulated):
            for kind, table in (("score", what.scores), ("ratio", what.ratios), ("coefficient", what.coefficients)):
                means = table.reshape(-1, table.shape[-1]).mean(0)
                self.log({f"{kind}/{m}": means[i] for i, m in enumerate(what.names)})
        else:
            assert isinstance(source, Rebalancer)
            self.log(_conflicts(tuple(source.branches), what))

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert self._updates is not None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)  # gradients are still to come
        self._change = self._changes() if self.due and closure is None else {}
        self.log(self._updates.before(self.due, self.every, self._factors, stale=closure is not None))

    def _after(self, *_: Any) -> None:
        assert self._updates is not None
        numbers = self._updates.after()
        self.log(numbers)
        self._judge(numbers)
        self.step += 1
        self._listen_to_gradients()

    # --- gradients as backward left them, against those that the step finds ---

    def _listen_to_gradients(self) -> None:
        if self._updates is None or not self.due:
            return
        assert self._branches is not None
        self._sizes = {m: {} for m in self._branches}
        for m in self._branches:
            for p in self._branches[m]:
                if p.requires_grad:
                    self._handles.append(p.register_post_accumulate_grad_hook(partial(self._size, m)))

    def _size(self, m: str, p: Tensor) -> None:
        assert p.grad is not None
        self._sizes[m][p] = norm(p)

    def _changes(self) -> dict[str, Tensor]:
        """How many times as large the gradients of each branch are as backward left them."""
        self._stop()
        changes = {}
        for m, sizes in self._sizes.items():
            now = [norm(p) for p in sizes if p.grad is not None]
            if now and len(now) == len(sizes):
                changes[m] = torch.stack(now).norm() / torch.stack(list(sizes.values())).norm()
        return changes

    def _close(self) -> None:
        """What was seen stays, but not what was watched."""
        self._stop()
        self._updates = self._branches = self._clock = self._found = None
        self._sizes, self._change, self._factors = {}, {}, Factors()

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    # --- what it means ---

    def _judge(self, numbers: Mapping[str, Tensor]) -> None:
        """The one place that reads on the host, when numbers are due."""
        found, applied, factors = self._found, self._applied, self._factors
        self._found, self._applied, self._factors = None, False, Factors()
        if not self.due:
            return
        for m, k in factors.gradients.items():
            if f"efficacy/{m}" in numbers:
                k, efficacy = float(k), float(numbers[f"efficacy/{m}"])
                if self._again("cancelled", m, abs(k - 1) > 0.1 and abs(efficacy - 1) < 0.05):
                    self.alarm(
                        "cancelled",
                        m,
                        f"its gradient is scaled by {k:.3g}, and the optimizer makes {efficacy:.2f} of the update "
                        "without: it divides a constant factor out again; use scale_updates",
                    )
        if found is None:
            return
        table = found.coefficients.reshape(-1, found.coefficients.shape[-1])
        low, high = table.amin(0).tolist(), table.amax(0).tolist()
        everyone = ", ".join(found.names)
        one = all(a == b == 1 for a, b in zip(low, high, strict=True))
        if self._again("one", everyone, one):
            self.alarm("one", everyone, "every coefficient is exactly 1: nothing is modulated")
        same = not one and len(low) > 1 and max(high) == min(low) and low == self._former
        self._former = low
        if self._again("constant", everyone, same):
            self.alarm(
                "constant", everyone, f"all modalities have the coefficient {low[0]:.4g}, and it does not change"
            )
        if self._updates is not None and not applied:
            changes = [c for c in map(float, self._change.values()) if math.isfinite(c)]
            if len(changes) < 2:
                return  # nothing to compare
            applied = max(changes) > (1 + 1e-3) * min(changes)  # by hand, after backward
        if self._again("unapplied", everyone, not one and not applied):
            self.alarm(
                "unapplied",
                everyone,
                "coefficients are computed, but no actuator gets them and no gradient changes between backward and "
                "step: they are never assigned, or to parameters by a name that none has. If they act in another way, "
                "say so by history.applied",
            )


def _conflicts(names: tuple[str, ...], what: Surgery) -> dict[str, Tensor]:
    """Losses, confidences, and how the gradients of each pair of modalities lie to each other, where they meet."""
    step = what.step
    found = {f"loss/{m}": step.losses[i] for i, m in enumerate(names)}
    found |= {f"confidence/{m}": step.confidence[i] for i, m in enumerate(names)}
    gram = what.gram[:, 1:, 1:] * step.units.square()[:, None, None]
    for i, j in combinations(range(len(names)), 2):
        met = (gram[:, i, i] > 0) & (gram[:, j, j] > 0)
        product = (gram[:, i, j] * met).sum()
        size = ((gram[:, i, i] * met).sum() * (gram[:, j, j] * met).sum()).sqrt()
        found[f"cosine/{names[i]}-{names[j]}"] = product / size  # NaN where they never meet
        found[f"conflict/{names[i]}-{names[j]}"] = ((gram[:, i, j] < 0) & met).sum() / met.sum()
    return found
