"""Wrong calls of ConvAdapter, CDCAdapter and AMA."""

import torch

from balancekit.adapters import AMA, CDCAdapter, ConvAdapter, missing
from tests.unit.wrong_calls import Case

NAMES = ("rgb", "depth")
CONV = ConvAdapter(16, grid=2)
MULTI = AMA(NAMES, 16, grid=(2, 3))
TOKENS = torch.zeros(2, 5, 16)
SEQUENCE = torch.zeros(2, 13, 16)


with missing(MULTI, torch.ones(2, 2, dtype=torch.bool)):  # from now on it has an attribute for it
    MULTI(SEQUENCE)


def present_of_another_batch() -> None:
    with missing(MULTI, torch.ones(2, 3, dtype=torch.bool)):
        MULTI(SEQUENCE)


def present_elsewhere() -> None:
    with missing(MULTI, torch.ones(2, 2, device="meta") > 0):
        MULTI(SEQUENCE)


CASES = [
    Case("dim", lambda: ConvAdapter(0, grid=2), ValueError, ("dim", "0")),
    Case("width", lambda: ConvAdapter(16, width=0, grid=2), ValueError, ("width", "0")),
    Case("width-type", lambda: ConvAdapter(16, width=8.0, grid=2), TypeError, ("width", "8.0")),
    Case("grid", lambda: ConvAdapter(16, grid=(2, 2, 2)), ValueError, ("grid", "(2, 2, 2)")),
    Case("grid-none", lambda: ConvAdapter(16, grid=None), TypeError, ("grid", "None")),
    Case("prefix", lambda: ConvAdapter(16, grid=2, prefix=-1), ValueError, ("prefix", "-1")),
    Case("dropout", lambda: ConvAdapter(16, grid=2, dropout=1.5), ValueError, ("dropout", "1.5")),
    Case("theta", lambda: CDCAdapter(16, theta=1.5, grid=2), ValueError, ("theta", "1.5")),
    Case("theta-type", lambda: CDCAdapter(16, theta="0.7", grid=2), TypeError, ("theta", "'0.7'")),
    Case("cdc-grid", lambda: CDCAdapter(16, grid=0), ValueError, ("grid", "0")),
    Case("conv-axes", lambda: CONV(TOKENS[0]), ValueError, ("tokens", "'b n d'", "(5, 16)")),
    Case("conv-type", lambda: CONV(TOKENS.long()), TypeError, ("tokens", "int64")),
    Case("conv-width", lambda: CONV(TOKENS[..., :8]), ValueError, ("tokens", "16", "(2, 5, 8)")),
    Case("conv-count", lambda: CONV(TOKENS[:, :4]), ValueError, ("tokens", "1 prefix", "2·2 grid = 5", "(2, 4, 16)")),
    Case("modalities", lambda: AMA(("rgb", "rgb"), 16, grid=2), ValueError, ("modalities", "('rgb', 'rgb')")),
    Case("modalities-string", lambda: AMA("rgb", 16, grid=2), TypeError, ("modalities", "'rgb'")),
    Case("modalities-none", lambda: AMA((), 16, grid=2), ValueError, ("modalities", "()")),
    Case("ama-dim", lambda: AMA(NAMES, 16.0, grid=2), TypeError, ("dim", "16.0")),
    Case("ama-width", lambda: AMA(NAMES, 16, width=-8, grid=2), ValueError, ("width", "-8")),
    Case("ama-grid", lambda: AMA(NAMES, 16, grid=(2, 0)), ValueError, ("grid", "0")),
    Case("ama-prefix", lambda: AMA(NAMES, 16, grid=2, prefix=True), TypeError, ("prefix", "True")),
    Case("ama-dropout", lambda: AMA(NAMES, 16, grid=2, dropout=None), TypeError, ("dropout", "None")),
    Case("ama-axes", lambda: MULTI(SEQUENCE[0]), ValueError, ("tokens", "'b n d'", "(13, 16)")),
    Case("ama-type", lambda: MULTI(SEQUENCE.bool()), TypeError, ("tokens", "bool")),
    Case("ama-tokens-width", lambda: MULTI(SEQUENCE[..., :8]), ValueError, ("tokens", "16", "(2, 13, 8)")),
    Case(
        "ama-count",
        lambda: MULTI(SEQUENCE[:, :7]),
        ValueError,
        ("tokens", "1 prefix + 2 modalities · 2·3 grid = 13", "(2, 7, 16)"),
    ),
    Case("present", present_of_another_batch, ValueError, ("present", "(2, 2)", "(2, 3)")),
    Case("present-elsewhere", present_elsewhere, ValueError, ("present", "on cpu", "on meta")),
    Case("tokens-list", lambda: CONV([1.0]), TypeError, ("tokens", "[1.0]")),
    Case("theta-nan", lambda: CDCAdapter(16, theta=float("nan"), grid=2), ValueError, ("theta", "nan")),
]
