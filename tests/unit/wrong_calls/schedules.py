"""Wrong calls of the schedules."""

import copy

import numpy as np
import torch
from torch import nn

from balancekit.schedules import purity, relearn_strength, soft_reset
from tests.unit.wrong_calls import Case


class Hides(nn.Linear):
    """Its state dict lacks the bias."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_state_dict_post_hook(lambda module, state, prefix, meta: state.__delitem__(prefix + "bias"))


MODEL = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
INITIAL = copy.deepcopy(MODEL.state_dict())
OPTIMIZER = torch.optim.Adam(MODEL.parameters())
MODEL(torch.linspace(-1, 1, 6).reshape(2, 3)).square().mean().backward()
OPTIMIZER.step()
RELU, HIDES = nn.ReLU(), Hides()
STRANGER, ADAGRAD = torch.optim.SGD(nn.Linear(1, 1).parameters()), torch.optim.Adagrad(MODEL.parameters())
Y, P = torch.tensor([0, 1]), torch.ones(2)


def without(initial: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: each for key, each in initial.items() if key != name}


CASES = [
    Case("module-list", lambda: soft_reset([MODEL], INITIAL, 0.5), TypeError, ("module", "Module")),
    Case("no-parameters", lambda: soft_reset(RELU, INITIAL, 0.5), ValueError, ("module", "at least one", "ReLU")),
    Case(
        "hidden-parameter",
        lambda: soft_reset(HIDES, {"weight": torch.ones(2, 2)}, 0.5),
        ValueError,
        ("module", "'bias'"),
    ),
    Case("state-list", lambda: soft_reset(MODEL, list(INITIAL), 0.5), TypeError, ("initial_state", "mapping")),
    Case(
        "state-missing",
        lambda: soft_reset(MODEL, without(INITIAL, "3.bias"), 0.5),
        ValueError,
        ("initial_state['3.bias']", "None"),
    ),
    Case(
        "state-shape",
        lambda: soft_reset(MODEL, {**INITIAL, "3.bias": torch.ones(3)}, 0.5),
        ValueError,
        ("initial_state['3.bias']", "(2,)", "(3,)"),
    ),
    Case(
        "state-number-list",
        lambda: soft_reset(MODEL, {**INITIAL, "3.bias": [0.0]}, 0.5),
        TypeError,
        ("initial_state['3.bias']", "[0.0]"),
    ),
    Case(
        "state-integers",
        lambda: soft_reset(MODEL, {**INITIAL, "3.bias": torch.ones(2, dtype=torch.int64)}, 0.5),
        TypeError,
        ("initial_state['3.bias']", "floating-point", "int64"),
    ),
    Case(
        "state-own",
        lambda: soft_reset(MODEL, MODEL.state_dict(), 0.5),
        ValueError,
        ("initial_state['0.weight']", "copy", "own"),
    ),
    Case(
        "state-parameters",
        lambda: soft_reset(MODEL, dict(MODEL.named_parameters()), 0.5),
        ValueError,
        ("initial_state['0.weight']", "copy", "own"),
    ),
    Case(
        "state-buffer",
        lambda: soft_reset(MODEL, without(INITIAL, "1.running_var"), 0.5, buffers=True),
        ValueError,
        ("initial_state['1.running_var']",),
    ),
    Case("strength-negative", lambda: soft_reset(MODEL, INITIAL, -0.1), ValueError, ("strength", "[0.0, 1.0]", "-0.1")),
    Case("strength-above-one", lambda: soft_reset(MODEL, INITIAL, 1.1), ValueError, ("strength", "[0.0, 1.0]", "1.1")),
    Case("strength-nan", lambda: soft_reset(MODEL, INITIAL, float("nan")), ValueError, ("strength", "nan")),
    Case(
        "strength-tensor-nan",
        lambda: soft_reset(MODEL, INITIAL, torch.tensor(float("nan"))),
        ValueError,
        ("strength", "nan"),
    ),
    Case(
        "strength-vector",
        lambda: soft_reset(MODEL, INITIAL, torch.tensor([0.5])),
        ValueError,
        ("strength", "()", "(1,)"),
    ),
    Case(
        "strength-integer",
        lambda: soft_reset(MODEL, INITIAL, torch.tensor(1)),
        TypeError,
        ("strength", "floating-point", "int64"),
    ),
    Case("strength-string", lambda: soft_reset(MODEL, INITIAL, "0.5"), TypeError, ("strength", "'0.5'")),
    Case(
        "optimizer-module",
        lambda: soft_reset(MODEL, INITIAL, 0.5, optimizer=MODEL),
        TypeError,
        ("optimizer", "Sequential"),
    ),
    Case(
        "optimizer-stranger",
        lambda: soft_reset(MODEL, INITIAL, 0.5, optimizer=STRANGER),
        ValueError,
        ("optimizer", "parameters of the module", "SGD"),
    ),
    Case(
        "optimizer-adagrad",
        lambda: soft_reset(MODEL, INITIAL, 0.5, optimizer=ADAGRAD),
        ValueError,
        ("optimizer", "first step", "Adagrad"),
    ),
    Case(
        "state-array",
        lambda: soft_reset(MODEL, {**INITIAL, "3.bias": np.ones(2)}, 0.5),
        TypeError,
        ("initial_state['3.bias']", "ndarray"),
    ),
    Case("strength-bool", lambda: soft_reset(MODEL, INITIAL, True), TypeError, ("strength", "True")),
    Case("module-class", lambda: soft_reset(nn.ReLU, INITIAL, 0.5), TypeError, ("module", "torch.nn.Module")),
    Case("clusters-list", lambda: purity([0, 1], Y), TypeError, ("clusters", "integer tensor", "[0, 1]")),
    Case("clusters-axes", lambda: purity(Y[None], Y), ValueError, ("clusters", "(n,)", "(1, 2)")),
    Case("clusters-nothing", lambda: purity(Y[:0], Y[:0]), ValueError, ("clusters", "at least one sample", "(0,)")),
    Case("clusters-floats", lambda: purity(Y.float(), Y), TypeError, ("clusters", "integers", "float32")),
    Case("clusters-negative", lambda: purity(Y - 1, Y), ValueError, ("clusters", "-1")),
    Case("labels-shape", lambda: purity(Y, Y[:1]), ValueError, ("labels", "(2,)", "(1,)")),
    Case("labels-bool", lambda: purity(Y, Y > 0), TypeError, ("labels", "integers", "bool")),
    Case("train-above-one", lambda: relearn_strength(1.5, 0.5), ValueError, ("purity_train", "[0.0, 1.0]", "1.5")),
    Case("val-nan", lambda: relearn_strength(0.5, float("nan")), ValueError, ("purity_val", "nan")),
    Case("val-string", lambda: relearn_strength(0.5, "0.5"), TypeError, ("purity_val", "'0.5'")),
    Case("train-integers", lambda: relearn_strength(Y, 0.5), TypeError, ("purity_train", "floating-point", "int64")),
    Case(
        "val-shape", lambda: relearn_strength(torch.ones(2), torch.ones(3)), ValueError, ("purity_val", "(2,)", "(3,)")
    ),
    Case("rate-negative", lambda: relearn_strength(0.5, 0.5, rate=-1), ValueError, ("rate", "-1")),
    Case("labels-elsewhere", lambda: purity(Y, Y.to("meta")), ValueError, ("labels", "on cpu", "on meta")),
    Case("clusters-array", lambda: purity(np.zeros(2, int), Y), TypeError, ("clusters", "ndarray")),
    Case("val-elsewhere", lambda: relearn_strength(P, P.to("meta")), ValueError, ("purity_val", "on cpu", "on meta")),
    Case("train-list", lambda: relearn_strength([0.5], 0.5), TypeError, ("purity_train", "[0.5]")),
    Case("rate-nan", lambda: relearn_strength(0.5, 0.5, rate=float("nan")), ValueError, ("rate", "nan")),
    Case("rate-string", lambda: relearn_strength(0.5, 0.5, rate="3"), TypeError, ("rate", "'3'")),
]
