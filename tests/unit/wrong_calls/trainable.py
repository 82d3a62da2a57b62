"""Wrong calls of the helpers that freeze, list, save and load the adapters."""

import torch
from torch import Tensor, nn

from balancekit.adapters import Parallel, adapter_state, load_adapter_state, train_only, trainable_table
from tests.unit.wrong_calls import Case


class Extra(nn.Module):
    """A module whose state is not made of parameters and buffers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def get_extra_state(self) -> Tensor:
        return torch.ones(2)

    def set_extra_state(self, state: Tensor) -> None:
        pass


SIDE, STRANGER = nn.Linear(4, 4), nn.Linear(2, 2)
MODEL = nn.ModuleDict(
    {
        "block": Parallel(nn.Linear(4, 4), SIDE),
        "dropout": nn.Dropout(),
        "norm": nn.BatchNorm1d(4),
        "extra": Extra(),
        "quantised": nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)]),
        "head": nn.Linear(4, 2),
    }
)
MODEL["head"].requires_grad_(False)
MODEL["norm"].requires_grad_(False)
STATE = adapter_state(MODEL, SIDE, "head")
META = nn.Linear(4, 2, device="meta")
META_STATE = adapter_state(nn.Linear(4, 2), "")


def train(*parts: object) -> object:
    return train_only(MODEL, SIDE, *parts)


def load(**changes: object) -> None:
    keys = {key.replace(".", "_"): key for key in [*STATE, "stranger"]}
    load_adapter_state(MODEL, STATE | {keys[key]: value for key, value in changes.items()}, SIDE, "head")


CASES = [
    Case("no-part", lambda: train_only(MODEL), ValueError, ("parts", "at least one", "()")),
    Case("no-model", lambda: train_only([SIDE], SIDE), TypeError, ("model", "torch.nn.Module")),
    Case("stranger", lambda: train(STRANGER), ValueError, ("parts[1]", "of the model", "Linear")),
    Case("copy", lambda: train(nn.Parameter(SIDE.weight.data)), ValueError, ("parts[1]", "(4, 4)")),
    Case("tensor", lambda: train(SIDE.weight.detach()), TypeError, ("parts[1]", "parameter", "Tensor")),
    Case("list", lambda: train([MODEL["head"]]), TypeError, ("parts[1]", "'list'")),
    Case("unknown-name", lambda: train("heads"), ValueError, ("parts[1]", "exact name", "'heads'")),
    Case("unknown-path", lambda: train("head.mlp.fc"), ValueError, ("parts[1]", "'head.mlp.fc'")),
    Case("pattern", lambda: train("block.*"), ValueError, ("parts[1]", "exact name", "'block.*'")),
    Case("buffer-name", lambda: train("norm.running_mean"), ValueError, ("parts[1]", "running_mean")),
    Case("method-name", lambda: train("head.forward"), ValueError, ("parts[1]", "'head.forward'")),
    Case("no-parameters", lambda: train("dropout"), ValueError, ("parts[1]", "can train", "Dropout")),
    Case("integers-only", lambda: train("quantised"), ValueError, ("parts[1]", "can train")),
    Case("table-of-no-model", lambda: trainable_table("model"), TypeError, ("model", "'model'")),
    Case("state-without-part", lambda: adapter_state(MODEL), ValueError, ("parts", "()")),
    Case("state-of-stranger", lambda: adapter_state(MODEL, "heads"), ValueError, ("parts[0]", "'heads'")),
    Case("state-of-nothing", lambda: adapter_state(MODEL, "dropout"), ValueError, ("parts[0]", "buffers")),
    Case("extra-state", lambda: adapter_state(MODEL, "extra"), ValueError, ("parts[0]", "_extra_state")),
    Case("load-without-part", lambda: load_adapter_state(MODEL, STATE), ValueError, ("parts", "()")),
    Case("load-no-mapping", lambda: load_adapter_state(MODEL, [], SIDE), TypeError, ("state", "mapping")),
    Case(
        "load-missing",
        lambda: load_adapter_state(MODEL, {}, SIDE),
        ValueError,
        ("state", "2 missing", "'block.side.weight', 'block.side.bias'"),
    ),
    Case(
        "load-unexpected",
        lambda: load_adapter_state(MODEL, STATE, SIDE),
        ValueError,
        ("state", "2 unexpected", "'head.weight', 'head.bias'"),
    ),
    Case("load-stranger", lambda: load(stranger=SIDE.bias), ValueError, ("state", "1 unexpected", "'stranger'")),
    Case(
        "load-shape",
        lambda: load(head_bias=torch.zeros(3)),
        ValueError,
        ("state['head.bias']", "(2,)", "(3,)"),
    ),
    Case(
        "load-dtype",
        lambda: load(head_bias=torch.zeros(2, dtype=torch.bfloat16)),
        TypeError,
        ("state['head.bias']", "float32", "bfloat16"),
    ),
    Case("load-no-tensor", lambda: load(head_bias=[0.0, 0.0]), TypeError, ("state['head.bias']", "[0.0")),
    Case(
        "load-without-values",
        lambda: load(head_bias=torch.zeros(2, device="meta")),
        ValueError,
        ("state['head.bias']", "meta"),
    ),
    Case("load-into-nowhere", lambda: load_adapter_state(META, META_STATE, META), ValueError, ("model", "meta")),
]
