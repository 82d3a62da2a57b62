"""The loss that carries gradient surgery into an ordinary backward."""

from collections import OrderedDict
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from balancekit._checks import expect, expect_choice, expect_number
from balancekit._distributed import world_size
from balancekit._typing import Float
from balancekit.branches import Branches
from balancekit.surgery._arguments import Facts, Losses, check_call
from balancekit.surgery._engine import Graft, Plan, Surgery, Weighted, apply_rule
from balancekit.surgery._facts import averaged_step, local_step
from balancekit.surgery._graph import Reach, reach
from balancekit.surgery._rule import Rule, Step


class Rebalancer:
    """Joins the unimodal losses to the total, so that one ``backward()`` applies a rule of gradient surgery.

    The call returns the total loss, bit for bit. The backward through it gives each parameter of a branch
    ``Σ_r w_r g_r``: row 0 is the total's gradient, row 1 + m is ``weight`` times the gradient of modality m's loss, and
    the weights come from the rule. It accumulates into ``.grad`` like any backward, so loss scaling, gradient
    accumulation, DistributedDataParallel and the trainers built on them need no further code.

    Where no loss reaches another branch (late fusion), the weights are known before any pass, and the backward is one
    ordinary backward. Elsewhere it runs one pass per modality besides the total's. In those passes hooks on tensors and
    modules fire too, once a pass; an input that requires grad counts as a tensor of no branch. They run inside the
    backward of this loss: another ``backward()`` before it frees what they share, as between any two losses, and the
    graphs of the unimodal losses live as long as you hold them. Compiled autograd cannot run them.

    Args:
        branches: which parameters belong to which modality.
        rule: from Gram matrices to weights, for example :class:`ReGrad`.
        weight: the factor λ of the unimodal losses (MMDG, arXiv 2402.19298, Eq. 8; 0.3 in its released code).
        per: the granule on which the rule acts: each tensor (as MMDG's released code), each branch, or the whole model,
            whose Gram matrix all branches share.
        rest: what parameters outside the branches get. "sum": an ordinary backward of ``total + weight · Σ losses``, so
            that auxiliary heads learn. "total": exactly the total's gradient, as in MMDG.
        sync: average gradients, losses, confidence and speed over the ranks of the default process group before the
            rule sees them. With DistributedDataParallel this equals one process with the large batch.

    Example:
        >>> from torch import nn
        >>> from balancekit.surgery import ReGrad
        >>> _ = torch.manual_seed(0)
        >>> model = nn.ModuleDict({"rgb": nn.Linear(4, 2), "depth": nn.Linear(3, 2)})
        >>> balancer = Rebalancer(Branches(model, {"rgb": "rgb", "depth": "depth"}), ReGrad(), weight=0.3)
        >>> rgb, depth = model["rgb"](torch.ones(5, 4)), model["depth"](torch.ones(5, 3))
        >>> total = (rgb + depth).square().mean()
        >>> loss = balancer(total, {"rgb": rgb.square().mean(), "depth": depth.square().mean()})
        >>> bool(loss == total)
        True
        >>> loss.backward()
    """

    def __init__(
        self,
        branches: Branches,
        rule: Rule,
        *,
        weight: float = 1.0,
        per: Literal["tensor", "branch", "model"] = "tensor",
        rest: Literal["sum", "total"] = "sum",
        sync: bool = False,
    ) -> None:
        expect(isinstance(branches, Branches), "branches", "a Branches", branches, error=TypeError)
        made = not isinstance(rule, type) and isinstance(rule, Rule)
        expect(made, "rule", "an object with uses_total and a call, such as ReGrad()", rule, error=TypeError)
        expect_number("weight", weight, low=0.0, high_open=True)
        expect_choice("per", per, ("tensor", "branch", "model"))
        expect_choice("rest", rest, ("sum", "total"))
        expect(isinstance(sync, bool), "sync", "a bool", sync, error=TypeError)
        self.branches, self.rule, self.weight = branches, rule, weight
        self.per, self.rest, self.sync = per, rest, sync
        self._hooks: OrderedDict[int, Callable[[Surgery], None]] = OrderedDict()

    def __call__(
        self,
        total: Float[Tensor, ""] | None,
        losses: Losses,
        *,
        confidence: Facts | None = None,
        speed: Facts | None = None,
    ) -> Float[Tensor, ""]:
        """Return the total loss, with surgery attached to its backward.

        Args:
            total: the loss of the whole model, a scalar. None: pure surgery; the value is then ``weight · Σ losses``.
            losses: one scalar per modality that is present. A modality left out is absent: never fast, weight 0.
            confidence: per modality, in (0, 1]: a number, or a tensor () or "b", whose mean is taken. 1 by default.
            speed: per modality, how fast it learns, higher is faster; as confidence. Minus the loss by default.

        Raises:
            ValueError: for names that are no branch, losses that are no scalars, and a loss that reaches no tensor of
                its own branch.
            RuntimeError: where separate passes would be silently wrong; the message names the cause and the remedy.
        """
        # a graph cannot be looked at while it is traced; the decorator form would import the compiler with the library
        arguments = total, losses, confidence, speed
        if torch.compiler.is_compiling():
            return torch.compiler.disable(Rebalancer._join)(self, *arguments)  # pyright: ignore[reportCallIssue]
        return self._join(*arguments)

    def _join(
        self,
        total: Tensor | None,
        losses: Losses,
        confidence: Facts | None,
        speed: Facts | None,
    ) -> Tensor:
        check_call(list(self.branches), self.rest, total, losses, {"confidence": confidence, "speed": speed})
        value = total
        if value is None:
            expect(len(losses) > 0, "losses", "at least one loss, since total is None", {})
            value = reduce(add, losses.values()) * self.weight
        if not torch.is_grad_enabled() or (not losses and not self.sync):
            return value

        names = list(self.branches)
        owners = self.branches.owners()
        reaches = {name: reach(losses[name]) for name in names if name in losses}
        for name, found in reaches.items():
            self._check_reach(name, found, {owners[leaf] for leaf in found.leaves if leaf in owners})
        collapses = (
            not self.rule.uses_total
            and self.per != "model"
            and all(owners.get(leaf) == name for name, found in reaches.items() for leaf in found.leaves)
        )
        step, ranks = local_step(names, value, losses, confidence, speed), None
        if self.sync:
            step, ranks, collapses = averaged_step(step, collapses)
        if collapses:
            return self._collapse(value, total is None, losses, step, ranks)
        return self._graft(value, total, losses, reaches, owners, step, ranks)

    def register_step_hook(self, hook: Callable[[Surgery], None]) -> RemovableHandle:
        """Call `hook` with a :class:`Surgery` in every backward; returns a handle whose ``remove()`` ends it."""
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle

    def _report(self, surgery: Surgery) -> None:
        for hook in tuple(self._hooks.values()):
            hook(surgery)

    def _check_reach(self, name: str, found: Reach, reached: set[str]) -> None:
        if name not in reached and found.obstacle is None:
            others = f"only tensors of {sorted(reached)}" if reached else "none of any branch"
            raise ValueError(
                f"losses[{name!r}]: expected a loss that reaches a trainable parameter of branch {name!r}, "
                f"found {others}; are keys swapped, is the branch frozen or its feature detached?"
            )

    def _collapse(self, value: Tensor, pure: bool, losses: Losses, step: Step, ranks: Tensor | None) -> Tensor:
        """One ordinary backward: each loss weighted by what the rule says of a Gram matrix with that row alone."""
        gram = torch.diag_embed(torch.eye(1 + len(step.losses), dtype=step.losses.dtype, device=step.losses.device))[1:]
        weights = apply_rule(self.rule, gram, step)
        own = weights[:, 1:].diagonal() * self.weight
        if ranks is not None:  # a mean over the ranks that have the modality, of which the reducer makes one over all
            own = own * world_size() / ranks.clamp(min=1)
        index = {name: i for i, name in enumerate(self.branches)}
        coefficients = tuple(own[index[name]] for name in losses)
        total = value.detach() if pure else value
        return Weighted.apply(
            lambda: self._report(Surgery(step, gram, weights, "collapse")), total, coefficients, *losses.values()
        )  # type: ignore[return-value]

    def _graft(
        self,
        value: Tensor,
        total: Tensor | None,
        losses: Losses,
        reaches: dict[str, Reach],
        owners: dict[Tensor, str],
        step: Step,
        ranks: Tensor | None,
    ) -> Tensor:
        roots, found = [losses[name] for name in reaches], list(reaches.values())
        row_of_total = self.rule.uses_total and total is not None and total.requires_grad
        if row_of_total:
            assert total is not None
            roots, found = [total, *roots], [reach(total), *found]
        for obstacle in (each.obstacle for each in found):
            if obstacle is not None:
                raise RuntimeError(
                    "losses: expected branches that meet nowhere, or a graph that allows separate passes, "
                    f"found {obstacle}"
                )
        names = list(self.branches)
        reached = dict.fromkeys(leaf for each in found for leaf in each.leaves)
        # averaged over ranks, every rank takes part in one schedule, whichever modalities it has
        own = [p for p in owners if p.requires_grad and (self.sync or p in reached)]
        everything = self.rest == "sum" or row_of_total
        others = [leaf for leaf in reached if leaf not in owners] if everything else []
        of_branch = [names.index(owners[leaf]) for leaf in own]
        by_tensor = self.per == "tensor"
        owner = torch.tensor(of_branch if by_tensor else range(len(names)), device=value.device)
        plan = Plan(
            rule=self.rule,
            step=step._replace(owner=owner),
            weight=self.weight,
            leaves=(*own, *others),
            granule_of=tuple(range(len(own))) if by_tensor else tuple(of_branch),
            names=tuple(names.index(name) for name in reaches),
            row_of_total=row_of_total,
            shared_gram=self.per == "model",
            rest_sums=self.rest == "sum",
            ranks=None if ranks is None else torch.cat([torch.full_like(ranks[:1], world_size()), ranks]),
            report=self._report,
        )
        passes_itself = total is not None and not row_of_total
        return Graft.apply(plan, value if passes_itself else value.detach(), tuple(roots), *plan.leaves)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"Rebalancer({self.rule}, weight={self.weight}, per={self.per!r}, rest={self.rest!r}, sync={self.sync})"
