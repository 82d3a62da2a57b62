"""Wrong calls of Branches and MultiBranch."""

from contextlib import suppress

import torch
from torch import nn

from balancekit import Branches, MultiBranch
from tests.unit.wrong_calls import Case

MODEL = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "relu": nn.ReLU()})
TIED = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
TIED["b"].weight = TIED["a"].weight
STRANGER = nn.Linear(2, 2)
TWO = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
IDLE, TWICE, NESTED = (Branches(TWO, {"only": "0"}) for _ in range(3))
LSTM = nn.ModuleDict({"only": nn.LSTM(2, 2)})
UNPOOLED = Branches(LSTM, {"only": "only"})
X = torch.ones(1, 2)


def captured(branches: Branches, *runs: nn.Module) -> None:
    with branches.capture():
        for module in runs:
            module(X)


def captured_inside() -> None:
    with NESTED.capture():
        TWO(X)
        captured(NESTED, TWO)


CAPTURES = [
    Case("capture-without-a-run", lambda: captured(IDLE), RuntimeError, ("capture", "no feature")),
    Case("capture-of-two-runs", lambda: captured(TWICE, TWO, TWO), RuntimeError, ("capture", "'only'", "2 runs")),
    Case("capture-in-a-capture", captured_inside, RuntimeError, ("capture", "inside a capture")),
    Case(
        "output-of-two", lambda: captured(UNPOOLED, LSTM["only"]), TypeError, ("the output of branch 'only'", "a pool")
    ),
]
for case in CAPTURES:  # a hook counts the runs of the last capture: from here on it does not change
    with suppress(case.error):
        case.call()

CASES = [
    Case("model-is-no-module", lambda: Branches(torch.sin, {"a": "a"}), TypeError, ("model",)),
    Case("groups-is-a-list", lambda: Branches(MODEL, ["a"]), TypeError, ("groups",)),
    Case("no-groups", lambda: Branches(MODEL, {}), ValueError, ("groups", "at least one branch")),
    Case("name-is-no-string", lambda: Branches(MODEL, {0: "a"}), TypeError, ("groups", "strings", "0")),
    Case("unknown-name", lambda: Branches(MODEL, {"a": "c"}), ValueError, ("groups['a']", "'c'")),
    Case(
        "unknown-path",
        lambda: Branches(MODEL, {"a": "a.x.weight"}),
        ValueError,
        ("groups['a']", "a.x.weight"),
    ),
    Case("a-prefix-is-no-name", lambda: Branches(MODEL, {"a": "a.wei"}), ValueError, ("groups['a']", "a.wei")),
    Case("stranger-module", lambda: Branches(MODEL, {"a": STRANGER}), ValueError, ("groups['a']", "Linear")),
    Case(
        "stranger-parameter",
        lambda: Branches(MODEL, {"a": STRANGER.bias}),
        ValueError,
        ("groups['a']", "(2,)"),
    ),
    Case(
        "target-is-a-tensor",
        lambda: Branches(MODEL, {"a": torch.ones(2)}),
        TypeError,
        ("groups['a']", "(2,)"),
    ),
    Case("target-is-a-number", lambda: Branches(MODEL, {"a": [3]}), TypeError, ("groups['a']", "3")),
    Case(
        "empty-group",
        lambda: Branches(MODEL, {"a": []}),
        ValueError,
        ("groups['a']", "at least one parameter"),
    ),
    Case("no-parameters", lambda: Branches(MODEL, {"a": "relu"}), ValueError, ("groups['a']", "'relu'")),
    Case(
        "overlap", lambda: Branches(MODEL, {"x": "a", "y": "a.bias"}), ValueError, ("groups", "'a.bias'", "'x'", "'y'")
    ),
    Case("nested", lambda: Branches(MODEL, {"x": MODEL, "y": "b"}), ValueError, ("groups", "'b.weight'", "'x'", "'y'")),
    Case("tied", lambda: Branches(TIED, {"x": "a", "y": "b"}), ValueError, ("groups", "'a.weight'", "'x'", "'y'")),
    Case(
        "pool-of-unknown",
        lambda: Branches(MODEL, {"a": "a"}, pool={"b": torch.sin}),
        ValueError,
        ("pool", "'b'"),
    ),
    Case("pool-is-no-callable", lambda: Branches(MODEL, {"a": "a"}, pool="mean"), TypeError, ("pool", "'mean'")),
    Case("multibranch-unknown", lambda: MultiBranch(MODEL, {"a": "z"}), ValueError, ("groups['a']", "'z'")),
    Case("multibranch-model", lambda: MultiBranch(torch.sin, {"a": "a"}), TypeError, ("model",)),
    Case("multibranch-groups", lambda: MultiBranch(MODEL, ["a"]), TypeError, ("groups",)),
    Case("pool-of-a-number", lambda: Branches(MODEL, {"a": "a"}, pool={"a": 3}), TypeError, ("pool", "3")),
    *CAPTURES,
]
