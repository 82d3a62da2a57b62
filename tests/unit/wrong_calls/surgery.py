"""Wrong calls of the Rebalancer and its rules."""

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


CASES = [
    Case("branches-is-a-dict", make(branches={"a": "a"}), TypeError, ("branches", "Branches"), (MODEL,)),
    Case("rule-is-a-class", make(rule=ReGrad), TypeError, ("rule", "ReGrad()"), (MODEL,)),
    Case("rule-is-a-string", make(rule="regrad"), TypeError, ("rule", "'regrad'"), (MODEL,)),
    Case("weight-negative", make(weight=-1.0), ValueError, ("weight", "[0.0, inf)", "-1.0"), (MODEL,)),
    Case("weight-nan", make(weight=float("nan")), ValueError, ("weight", "nan"), (MODEL,)),
    Case("weight-none", make(weight=None), TypeError, ("weight", "None"), (MODEL,)),
    Case("per", make(per="layer"), ValueError, ("per", "'branch'", "'layer'"), (MODEL,)),
    Case("rest", make(rest="none"), ValueError, ("rest", "'total'", "'none'"), (MODEL,)),
    Case("sync", make(sync=1), TypeError, ("sync", "1"), (MODEL,)),
    Case("independent", make(independent=1), TypeError, ("independent", "1"), (MODEL,)),
    Case("independent-model", make(independent=True, per="model"), ValueError, ("independent", "'model'"), (MODEL,)),
    Case("independent-total", make(rule=PCGrad(), independent=True), ValueError, ("independent", "PCGrad()"), (MODEL,)),
    Case("low-memory", make(low_memory="yes"), TypeError, ("low_memory", "'yes'"), (MODEL,)),
    Case("low-memory-model", make(low_memory=True, per="model"), ValueError, ("low_memory", "'model'"), (MODEL,)),
    Case("every-zero", make(every=0, per="branch"), ValueError, ("every", "at least 1", "0"), (MODEL,)),
    Case("every-half", make(every=0.5, per="branch"), TypeError, ("every", "0.5"), (MODEL,)),
    Case("every-tensor", make(every=4), ValueError, ("every", "'tensor'", "4"), (MODEL,)),
    Case("proxy-module", make(proxy=MODEL, per="branch"), TypeError, ("proxy", "Branches"), (MODEL,)),
    Case(
        "proxy-tensor", make(proxy=Branches(MODEL, {"a": "a", "b": "b"})), ValueError, ("proxy", "'tensor'"), (MODEL,)
    ),
    Case(
        "proxy-names",
        make(proxy=Branches(MODEL, {"a": "a"}), per="branch"),
        ValueError,
        ("proxy", "['a', 'b']", "['a']"),
        (MODEL,),
    ),
    Case(
        "proxy-swapped",
        make(proxy=Branches(MODEL, {"a": "b", "b": "a"}), per="branch"),
        ValueError,
        ("proxy", "['a', 'b']"),
        (MODEL,),
    ),
    Case("margin-one", lambda: ReGrad(margin=1.0), ValueError, ("margin", "[0.0, 1.0)")),
    Case("margin-negative", lambda: ReGrad(margin=-0.1), ValueError, ("margin", "-0.1")),
    Case("margin-string", lambda: ReGrad(margin="0"), TypeError, ("margin", "'0'")),
    Case("vector-total", call(lambda: MODEL["a"](X)), ValueError, ("total", "scalar", "(3, 1)"), (MODEL,)),
    Case("integer-total", call(lambda: torch.tensor(3)), ValueError, ("total", "int64"), (MODEL,)),
    Case("number-total", call(lambda: 3.0), TypeError, ("total", "3.0"), (MODEL,)),
    Case("losses-is-a-list", call(unimodal=lambda: list(losses().values())), TypeError, ("losses",), (MODEL,)),
    Case(
        "unknown-loss",
        call(unimodal=lambda: losses(c=total())),
        ValueError,
        ("losses", "['a', 'b']", "['c']"),
        (MODEL,),
    ),
    Case(
        "vector-loss", call(unimodal=lambda: losses(a=MODEL["a"](X))), ValueError, ("losses['a']", "(3, 1)"), (MODEL,)
    ),
    Case("number-loss", call(unimodal=lambda: losses(a=1.0)), TypeError, ("losses['a']", "1.0"), (MODEL,)),
    Case("swapped-losses", call(unimodal=swapped), ValueError, ("losses['a']", "['b']", "swapped"), (MODEL,)),
    Case(
        "detached-loss",
        call(unimodal=lambda: losses(b=losses()["b"].detach())),
        ValueError,
        ("losses['b']", "none"),
        (MODEL,),
    ),
    Case(
        "no-loss-at-all",
        lambda: BALANCER(None, {}),
        ValueError,
        ("losses", "at least one"),
        (MODEL,),
    ),
    Case(
        "no-total-to-keep",
        lambda: Rebalancer(BRANCHES, ReGrad(), rest="total")(None, losses()),
        ValueError,
        ("total", 'rest="total"', "None"),
        (MODEL,),
    ),
    Case("confidence-is-a-number", call(confidence=0.5), TypeError, ("confidence", "0.5"), (MODEL,)),
    Case(
        "confidence-unknown", call(confidence={"a": 1, "b": 1, "c": 1}), ValueError, ("confidence", "['c']"), (MODEL,)
    ),
    Case("confidence-missing", call(confidence={"a": 1.0}), ValueError, ("confidence", "['a', 'b']"), (MODEL,)),
    Case(
        "confidence-matrix",
        call(confidence={"a": torch.ones(3, 2), "b": 1}),
        ValueError,
        ("confidence['a']", '"b"', "(3, 2)"),
        (MODEL,),
    ),
    Case(
        "confidence-empty",
        call(confidence={"a": torch.ones(0), "b": 1}),
        ValueError,
        ("confidence['a']", "(0,)"),
        (MODEL,),
    ),
    Case("speed-string", call(speed={"a": "fast", "b": 1}), ValueError, ("speed['a']", "'fast'"), (MODEL,)),
    Case("speed-missing", call(speed={"b": 1.0}), ValueError, ("speed", "['a', 'b']"), (MODEL,)),
    Case(
        "rule-of-a-wrong-shape",
        call(balancer=Rebalancer(BRANCHES, Shapeless())),
        ValueError,
        ("weights of the rule", "(2, 3)", "(2,)"),
        (MODEL,),
    ),
]
