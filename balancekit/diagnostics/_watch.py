"""Listens to what balances a training, and says when it does nothing."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancekit._checks import expect, expect_choice, expect_count, expect_floating, is_real
from balancekit.branches import Branches
from balancekit.diagnostics._conflicts import conflicts
from balancekit.diagnostics._factors import Factors
from balancekit.diagnostics._gradients import GradientChanges
from balancekit.diagnostics._history import History
from balancekit.diagnostics._judge import Judge
from balancekit.diagnostics._updates import Updates
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

    ===============  ===============================================================================================
    ``one``          every coefficient is exactly 1
    ``constant``     all modalities have one coefficient, and it does not change
    ``unapplied``    coefficients are computed, but no actuator gets them, and no gradient changes between backward and
                     step: they were never assigned, or to parameters by a name that none has
    ``cancelled``    gradients are scaled, and the optimizer makes the same update of them (see ``scale_updates``)
    ``no gradient``  a loss term given to ``history.term`` reaches no parameter of any branch
    ===============  ===============================================================================================

    Actuators are heard by every watch that is open in the thread: watch one training at a time. A Rebalancer with
    ``weight=0`` has no gradients to compare, so its cosines are NaN; to measure without acting, give it 1e-6.

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
    fits = optimizer is None or isinstance(optimizer, Optimizer)
    expect(fits, "optimizer", "a torch.optim.Optimizer", optimizer, error=TypeError)
    fits = branches is None or isinstance(branches, Branches)
    expect(fits, "branches", "a Branches", branches, error=TypeError)
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
        self.every = every
        self._branches = branches
        self._updates = Updates(optimizer, branches) if optimizer is not None and branches is not None else None
        self._judge = Judge(patience)
        self._factors = Factors(branches if self._updates is not None else None)
        self._applied = False  # whether they did anything
        self._found: Modulated | None = None  # since the last step
        self._gradients = None if self._updates is None or branches is None else GradientChanges(branches)
        self._alive: set[str] = set()  # loss terms that have shown a gradient
        self._changes: dict[str, Tensor] = {}  # of gradients between backward and step
        self._called = 0
        self._clock: Any = None  # whose calls are the steps, without an optimizer
        if self._gradients is not None:
            self._gradients.listen()

    @property
    def due(self) -> bool:
        """Whether numbers are taken in this step."""
        return self.step % self.every == 0

    def term(self, name: str, loss: Tensor) -> Tensor:
        """Return a term of the loss as it is, and raise the alarm if no parameter of a branch has a gradient from it.

        Until it has shown one, a backward pass of the term alone is made whenever numbers are due. Call it where the
        term is made, before :func:`~balancekit.modulation.modulate`.
        """
        expect(isinstance(name, str), "name", "a string", name, error=TypeError)
        expect_floating("loss", loss, "with one value")
        expect(loss.numel() == 1, "loss", "a tensor with one value", loss)
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
        elif self._judge.again("no gradient", name, True) or not loss.requires_grad:
            self.alarm("no gradient", name, "this loss term has no gradient in any branch: it trains nothing")
        return loss

    # --- what is heard ---

    def applied(
        self, on: Literal["gradients", "updates", "features"], coefficients: Mapping[str, Tensor | float]
    ) -> None:
        """Say that coefficients were applied, where no actuator of this library did: on "gradients" or "updates"."""
        expect_choice("on", on, ("gradients", "updates", "features"))
        fits = isinstance(coefficients, Mapping)
        expect(fits, "coefficients", "a mapping with modalities as keys", coefficients, error=TypeError)
        for name, k in coefficients.items():
            fits = isinstance(k, Tensor) or is_real(k)
            expect(fits, f"coefficients[{name!r}]", "a number or a tensor", k, error=TypeError)
        self._acted(Acted("backward" if on == "gradients" else on, coefficients))  # before it or after

    def _acted(self, what: Acted) -> None:
        self._applied = True
        self._factors.add(what.on, what.coefficients)

    def _heard(self, source: Modulator | Rebalancer, what: Modulated | Surgery) -> None:
        if self._clock is None:
            return  # a copy of what was watched has a copy of this hook
        if self._updates is None and self._found is not None and isinstance(what, Modulated):
            self._conclude({})
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
            self.log(conflicts(tuple(source.branches), what))

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert self._updates is not None
        assert self._gradients is not None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)  # gradients are still to come
        self._changes = self._gradients.measured() if self.due and closure is None else {}
        self.log(self._updates.before(self.due, self.every, self._factors, stale=closure is not None))

    def _after(self, *_: Any) -> None:
        assert self._updates is not None
        assert self._gradients is not None
        numbers = self._updates.after()
        self.log(numbers)
        self._conclude(numbers)
        self.step += 1
        if self.due:
            self._gradients.stop()
            self._gradients.listen()

    def _conclude(self, numbers: Mapping[str, Tensor]) -> None:
        """What the step comes to; the next one starts with nothing."""
        found, applied = self._found, self._applied
        verdicts = [*self._judge.cancelled(self._factors, numbers)] if self.due else []
        self._found, self._applied = None, False
        self._factors.clear()
        if not self.due:
            return
        if found is not None:
            changes = None if self._updates is None else self._changes
            verdicts += self._judge.coefficients(found, applied=applied, changes=changes)
        for verdict in verdicts:
            self.alarm(*verdict)

    def _close(self) -> None:
        """What was seen stays, but not what was watched."""
        if self._gradients is not None:
            self._gradients.stop()
        self._factors.stop()
        self.__dict__ |= self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        """What was seen: a copy watches nothing."""
        watched = dict.fromkeys(("_updates", "_gradients", "_branches", "_clock", "_found"))
        return {**self.__dict__, **watched, "_changes": {}, "_factors": Factors(None)}
