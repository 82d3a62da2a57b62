"""Wrong calls of the Rebalancer and its rules."""

import numpy as np
import torch
from torch import nn

from balancekit import Branches, PCGrad, Rebalancer, ReGrad
from tests.unit.wrong_calls import Case

MODEL = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
BRANCHES = Branches(MODEL, {"a": "a", "b": "b"})
BALANCER = Rebalancer(BRANCHES, ReGrad())
X = torch.ones(3, 2)


class Shapeless:
    uses_total = False

    def __call__(self, gram, step):
        return torch.ones(2)


def losses(**changes: object) -> dict:
    both = {name: MODEL[name](X).square().mean() for name in ("a", "b")}
    return {**both, **changes}


def total() -> torch.Tensor:
    return sum(losses().values())


def swapped() -> dict:
    both = losses()
    return {"a": both["b"], "b": both["a"]}


def call(loss=None, unimodal=None, balancer=BALANCER, **options):
    return lambda: balancer(
        total() if loss is None else loss(), losses() if unimodal is None else unimodal(), **options
    )


def make(**options):
    return lambda: Rebalancer(**{"branches": BRANCHES, "rule": ReGrad(), **options})


MIXED = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
HOLDING = Rebalancer(Branches(MIXED, {"a": "a", "b": "b"}), ReGrad(), every=2, per="branch")
MET = MIXED["b"](MIXED["a"](X))
HOLDING(MET.mean(), {"a": MET.square().mean(), "b": MET.sin().mean()}).backward()
HELD = HOLDING.state_dict()

CASES = [
    Case("branches-is-a-dict", make(branches={"a": "a"}), TypeError, ("branches", "Branches")),
    Case("rule-is-a-class", make(rule=ReGrad), TypeError, ("rule", "ReGrad()")),
    Case("rule-is-a-string", make(rule="regrad"), TypeError, ("rule", "'regrad'")),
    Case("weight-negative", make(weight=-1.0), ValueError, ("weight", "[0.0, inf)", "-1.0")),
    Case("weight-nan", make(weight=float("nan")), ValueError, ("weight", "nan")),
    Case("weight-none", make(weight=None), TypeError, ("weight", "None")),
    Case("per", make(per="layer"), ValueError, ("per", "'branch'", "'layer'")),
    Case("rest", make(rest="none"), ValueError, ("rest", "'total'", "'none'")),
    Case("sync", make(sync=1), TypeError, ("sync", "1")),
    Case("independent", make(independent=1), TypeError, ("independent", "1")),
    Case("independent-model", make(independent=True, per="model"), ValueError, ("independent", "'model'")),
    Case("independent-total", make(rule=PCGrad(), independent=True), ValueError, ("independent", "PCGrad()")),
    Case("low-memory", make(low_memory="yes"), TypeError, ("low_memory", "'yes'")),
    Case("low-memory-model", make(low_memory=True, per="model"), ValueError, ("low_memory", "'model'")),
    Case("every-zero", make(every=0, per="branch"), ValueError, ("every", "at least 1", "0")),
    Case("every-half", make(every=0.5, per="branch"), TypeError, ("every", "0.5")),
    Case("every-tensor", make(every=4), ValueError, ("every", "'tensor'", "4")),
    Case("proxy-module", make(proxy=MODEL, per="branch"), TypeError, ("proxy", "Branches")),
    Case("proxy-tensor", make(proxy=Branches(MODEL, {"a": "a", "b": "b"})), ValueError, ("proxy", "'tensor'")),
    Case(
        "proxy-names",
        make(proxy=Branches(MODEL, {"a": "a"}), per="branch"),
        ValueError,
        ("proxy", "['a', 'b']", "['a']"),
    ),
    Case(
        "proxy-swapped",
        make(proxy=Branches(MODEL, {"a": "b", "b": "a"}), per="branch"),
        ValueError,
        ("proxy", "['a', 'b']"),
    ),
    Case("margin-one", lambda: ReGrad(margin=1.0), ValueError, ("margin", "[0.0, 1.0)")),
    Case("margin-negative", lambda: ReGrad(margin=-0.1), ValueError, ("margin", "-0.1")),
    Case("margin-string", lambda: ReGrad(margin="0"), TypeError, ("margin", "'0'")),
    Case("vector-total", call(lambda: MODEL["a"](X)), ValueError, ("total", "scalar", "(3, 1)")),
    Case("integer-total", call(lambda: torch.tensor(3)), ValueError, ("total", "int64")),
    Case("number-total", call(lambda: 3.0), TypeError, ("total", "3.0")),
    Case("losses-is-a-list", call(unimodal=lambda: list(losses().values())), TypeError, ("losses",)),
    Case(
        "unknown-loss",
        call(unimodal=lambda: losses(c=total())),
        ValueError,
        ("losses", "['a', 'b']", "['c']"),
    ),
    Case("vector-loss", call(unimodal=lambda: losses(a=MODEL["a"](X))), ValueError, ("losses['a']", "(3, 1)")),
    Case("number-loss", call(unimodal=lambda: losses(a=1.0)), TypeError, ("losses['a']", "1.0")),
    Case("swapped-losses", call(unimodal=swapped), ValueError, ("losses['a']", "['b']", "swapped")),
    Case(
        "detached-loss",
        call(unimodal=lambda: losses(b=losses()["b"].detach())),
        ValueError,
        ("losses['b']", "none"),
    ),
    Case(
        "no-loss-at-all",
        lambda: BALANCER(None, {}),
        ValueError,
        ("losses", "at least one"),
    ),
    Case(
        "no-total-to-keep",
        lambda: Rebalancer(BRANCHES, ReGrad(), rest="total")(None, losses()),
        ValueError,
        ("total", 'rest="total"', "None"),
    ),
    Case("confidence-is-a-number", call(confidence=0.5), TypeError, ("confidence", "0.5")),
    Case("confidence-unknown", call(confidence={"a": 1, "b": 1, "c": 1}), ValueError, ("confidence", "['c']")),
    Case("confidence-missing", call(confidence={"a": 1.0}), ValueError, ("confidence", "['a', 'b']")),
    Case(
        "confidence-matrix",
        call(confidence={"a": torch.ones(3, 2), "b": 1}),
        ValueError,
        ("confidence['a']", '"b"', "(3, 2)"),
    ),
    Case(
        "confidence-empty",
        call(confidence={"a": torch.ones(0), "b": 1}),
        ValueError,
        ("confidence['a']", "(0,)"),
    ),
    Case("speed-string", call(speed={"a": "fast", "b": 1}), ValueError, ("speed['a']", "'fast'")),
    Case("speed-missing", call(speed={"b": 1.0}), ValueError, ("speed", "['a', 'b']")),
    Case(
        "rule-of-a-wrong-shape",
        call(balancer=Rebalancer(BRANCHES, Shapeless())),
        ValueError,
        ("weights of the rule", "(2, 3)", "(2,)"),
    ),
    Case("confidence-above-one", call(confidence={"a": 2.0, "b": 1}), ValueError, ("confidence['a']", "2.0")),
    Case("confidence-negative", call(confidence={"a": -1.0, "b": 1}), ValueError, ("confidence['a']", "-1.0")),
    Case("confidence-list", call(confidence=[1.0, 1.0]), TypeError, ("confidence", "branch names", "[1.0, 1.0]")),
    Case("speed-array", call(speed={"a": np.ones(2), "b": 1}), ValueError, ("speed['a']", "ndarray")),
    Case("step-hook", lambda: BALANCER.register_step_hook("print"), TypeError, ("hook", "'print'")),
    Case("load-a-list", lambda: HOLDING.load_state_dict([]), TypeError, ("state", "[]")),
    Case("load-a-part", lambda: HOLDING.load_state_dict({"weighed": None}), ValueError, ("state", "'present'")),
    Case("load-an-age", lambda: HOLDING.load_state_dict({**HELD, "age": "1"}), TypeError, ("state['age']", "'1'")),
    Case(
        "load-a-negative-age",
        lambda: HOLDING.load_state_dict({**HELD, "age": -1}),
        ValueError,
        ("state['age']", "at least 0", "-1"),
    ),
]
