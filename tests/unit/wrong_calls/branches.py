"""Wrong calls of Branches and MultiBranch."""

import torch
from torch import nn

from balancekit import Branches, MultiBranch
from tests.unit.wrong_calls import Case

MODEL = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "relu": nn.ReLU()})
TIED = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
TIED["b"].weight = TIED["a"].weight
STRANGER = nn.Linear(2, 2)

CASES = [
    Case("model-is-no-module", lambda: Branches(torch.sin, {"a": "a"}), TypeError, ("model",)),
    Case("groups-is-a-list", lambda: Branches(MODEL, ["a"]), TypeError, ("groups",), (MODEL,)),
    Case("no-groups", lambda: Branches(MODEL, {}), ValueError, ("groups", "at least one branch"), (MODEL,)),
    Case("name-is-no-string", lambda: Branches(MODEL, {0: "a"}), TypeError, ("groups", "strings", "0"), (MODEL,)),
    Case("unknown-name", lambda: Branches(MODEL, {"a": "c"}), ValueError, ("groups['a']", "'c'"), (MODEL,)),
    Case(
        "unknown-path",
        lambda: Branches(MODEL, {"a": "a.x.weight"}),
        ValueError,
        ("groups['a']", "a.x.weight"),
        (MODEL,),
    ),
    Case(
        "a-prefix-is-no-name", lambda: Branches(MODEL, {"a": "a.wei"}), ValueError, ("groups['a']", "a.wei"), (MODEL,)
    ),
    Case("stranger-module", lambda: Branches(MODEL, {"a": STRANGER}), ValueError, ("groups['a']", "Linear"), (MODEL,)),
    Case(
        "stranger-parameter",
        lambda: Branches(MODEL, {"a": STRANGER.bias}),
        ValueError,
        ("groups['a']", "(2,)"),
        (MODEL,),
    ),
    Case(
        "target-is-a-tensor",
        lambda: Branches(MODEL, {"a": torch.ones(2)}),
        TypeError,
        ("groups['a']", "(2,)"),
        (MODEL,),
    ),
    Case("target-is-a-number", lambda: Branches(MODEL, {"a": [3]}), TypeError, ("groups['a']", "3"), (MODEL,)),
    Case(
        "empty-group",
        lambda: Branches(MODEL, {"a": []}),
        ValueError,
        ("groups['a']", "at least one parameter"),
        (MODEL,),
    ),
    Case("no-parameters", lambda: Branches(MODEL, {"a": "relu"}), ValueError, ("groups['a']", "'relu'"), (MODEL,)),
    Case(
        "overlap", lambda: Branches(MODEL, {"x": "a", "y": "a.bias"}), ValueError, ("'a.bias'", "'x'", "'y'"), (MODEL,)
    ),
    Case("nested", lambda: Branches(MODEL, {"x": MODEL, "y": "b"}), ValueError, ("'b.weight'", "'x'", "'y'"), (MODEL,)),
    Case("tied", lambda: Branches(TIED, {"x": "a", "y": "b"}), ValueError, ("'a.weight'", "'x'", "'y'"), (TIED,)),
    Case(
        "pool-of-unknown",
        lambda: Branches(MODEL, {"a": "a"}, pool={"b": torch.sin}),
        ValueError,
        ("pool", "'b'"),
        (MODEL,),
    ),
    Case(
        "pool-is-no-callable", lambda: Branches(MODEL, {"a": "a"}, pool="mean"), TypeError, ("pool", "'mean'"), (MODEL,)
    ),
    Case("multibranch-unknown", lambda: MultiBranch(MODEL, {"a": "z"}), ValueError, ("groups['a']", "'z'"), (MODEL,)),
]
