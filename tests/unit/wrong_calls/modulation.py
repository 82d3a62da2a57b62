import torch

from balancekit.modulation import pmr_weights
from tests.unit.wrong_calls import Case

CASES = [
    Case("scores as a dict", lambda: pmr_weights({"rgb": 1.0}), TypeError, ("scores", "(m,)", "rgb")),
    Case("scores as integers", lambda: pmr_weights(torch.tensor([1, 2])), TypeError, ("scores", "int64")),
    Case("scores of a batch", lambda: pmr_weights(torch.ones(2, 3)), ValueError, ("scores", "(m,)", "(2, 3)")),
    Case("one score", lambda: pmr_weights(torch.tensor(1.0)), ValueError, ("scores", "(m,)", "()")),
    Case("no scores", lambda: pmr_weights(torch.empty(0)), ValueError, ("scores", "at least one", "(0,)")),
]
