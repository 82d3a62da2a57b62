"""Wrong calls of the adapters."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from balancekit.adapters import (
    CentralDifferenceConv2d,
    CrossModal,
    GatedCrossAttention,
    Parallel,
    Tap,
    central_difference,
    complete,
    convolve_tokens,
    gated_attention,
    hub,
    missing,
    remove,
    ring,
)
from tests.unit.wrong_calls import Case

NAMES = ("rgb", "depth")
ADAPTER = GatedCrossAttention(16, conv="cdc", grid=2)
WIDE = GatedCrossAttention(16, other_dim=4)
MAKE = partial(GatedCrossAttention, 16)
CROSS = CrossModal(NAMES, hub("rgb", NAMES), MAKE)
TOKENS = torch.zeros(2, 5, 16)
SHARED = GatedCrossAttention(16)
QKV = torch.zeros(2, 1, 3, 4)
TOO_LATE = Tap(nn.Linear(3, 3), lambda y: y)
SOURCE = nn.Identity()
TAP = Tap(SOURCE, lambda y: y)
TAPPED = CrossModal(NAMES, hub("rgb", NAMES), MAKE, confidence=TAP)
SIDE = nn.Linear(3, 3)


class Clash(nn.Module):
    """A base with a child called side."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(3, 3, dtype=torch.float64)


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": x}


HERE = torch.ones(2, 3, dtype=torch.bool)


def told(model: nn.Module, present: Tensor) -> None:
    with missing(model, present):
        pass


SOURCE(torch.ones(4, 5))
BASE = nn.Linear(3, 3)
CLASH, TWICE = Clash(), Parallel(nn.Linear(3, 3), nn.Linear(3, 3))
EARLY = Parallel(nn.Linear(3, 3), nn.Linear(3, 3), input_of=nn.Linear(3, 3))
NARROW = Parallel(nn.Identity(), nn.Linear(3, 1))

TRUST, KERNEL = torch.ones(2, 3), torch.ones(16, 16, 3, 3)
TAPPED_LAYER = nn.Linear(3, 3)
TAP_OF_NOTHING = Tap(TAPPED_LAYER, lambda y: None)

CASES = [
    Case("heads", lambda: GatedCrossAttention(16, width=8, heads=3), ValueError, ("heads", "8", "3")),
    Case("dim", lambda: GatedCrossAttention(0), ValueError, ("dim",)),
    Case("gate", lambda: GatedCrossAttention(16, gate="value"), ValueError, ("gate", "'value'")),
    Case("conv", lambda: GatedCrossAttention(16, conv="3x3"), ValueError, ("conv", "'3x3'")),
    Case("conv-without-grid", lambda: GatedCrossAttention(16, conv="cdc"), ValueError, ("grid", "None")),
    Case("grid", lambda: GatedCrossAttention(16, conv="cdc", grid=(2, 2, 2)), ValueError, ("grid", "(2, 2, 2)")),
    Case("grid-type", lambda: GatedCrossAttention(16, conv="cdc", grid=2.0), TypeError, ("grid", "2.0")),
    Case("theta", lambda: GatedCrossAttention(16, theta=2.0), ValueError, ("theta", "2.0")),
    Case("prefix", lambda: GatedCrossAttention(16, prefix=-1), ValueError, ("prefix", "-1")),
    Case("dropout", lambda: GatedCrossAttention(16, dropout=1.5), ValueError, ("dropout", "1.5")),
    Case("own-width", lambda: ADAPTER(torch.zeros(2, 5, 8), TOKENS), ValueError, ("own", "16", "(2, 5, 8)")),
    Case("own-axes", lambda: ADAPTER(torch.zeros(5, 16), TOKENS), ValueError, ("own", "'b n d'", "(5, 16)")),
    Case("own-dtype", lambda: ADAPTER(TOKENS.long(), TOKENS), TypeError, ("own", "int64")),
    Case(
        "own-grid", lambda: ADAPTER(TOKENS[:, :4], TOKENS[:, :4]), ValueError, ("own", "1 prefix", "2·2", "(2, 4, 16)")
    ),
    Case("other-count", lambda: WIDE(TOKENS, torch.zeros(2, 7, 4)), ValueError, ("other", "(2, 5, 4)", "(2, 7, 4)")),
    Case("other-width", lambda: WIDE(TOKENS, TOKENS), ValueError, ("other", "(2, 5, 4)", "(2, 5, 16)")),
    Case(
        "confidence", lambda: ADAPTER(TOKENS, TOKENS, torch.ones(2, 4)), ValueError, ("confidence", "(2, 5)", "(2, 4)")
    ),
    Case("confidence-axes", lambda: ADAPTER(TOKENS, TOKENS, torch.ones(2)), ValueError, ("confidence", "'b n'")),
    Case(
        "confidence-mask",
        lambda: ADAPTER(TOKENS, TOKENS, torch.ones(2, 5, dtype=torch.bool)),
        TypeError,
        ("confidence", "bool"),
    ),
    Case("attention-gate", lambda: gated_attention(QKV, QKV, QKV, gate="output"), ValueError, ("gate", "'output'")),
    Case(
        "attention-query",
        lambda: gated_attention(QKV, QKV[:, :, :2], QKV[:, :, :2], torch.ones(2, 2)),
        ValueError,
        ("confidence", "(2, 3)", "(2, 2)"),
    ),
    Case(
        "attention-key",
        lambda: gated_attention(QKV, QKV[:, :, :2], QKV[:, :, :2], torch.ones(2, 3), "key"),
        ValueError,
        ("confidence", "(2, 2)", "(2, 3)"),
    ),
    Case("tokens", lambda: convolve_tokens(TOKENS, torch.ones(1, 16, 3, 3), (3, 3)), ValueError, ("tokens", "3·3")),
    Case("kernel", lambda: CentralDifferenceConv2d(1, 1, 4), ValueError, ("kernel_size", "4")),
    Case("cdc-theta", lambda: CentralDifferenceConv2d(1, 1, theta=-0.5), ValueError, ("theta", "-0.5")),
    Case("hub", lambda: hub("thermal", NAMES), ValueError, ("center", "'rgb'", "'thermal'")),
    Case("modalities", lambda: hub("rgb", ("rgb", "rgb")), ValueError, ("modalities", "('rgb', 'rgb')")),
    Case("modalities-dot", lambda: CrossModal(("a.b", "c"), (), MAKE), ValueError, ("modalities", "a.b")),
    Case("modalities-string", lambda: CrossModal("rgb", (), MAKE), TypeError, ("modalities", "'rgb'")),
    Case("edges-name", lambda: CrossModal(NAMES, [("rgb", "ir")], MAKE), ValueError, ("edges", "'ir'", "'depth'")),
    Case("edges-self", lambda: CrossModal(NAMES, [("rgb", "rgb")], MAKE), ValueError, ("edges", "('rgb', 'rgb')")),
    Case("edges-twice", lambda: CrossModal(NAMES, [("rgb", "depth")] * 2, MAKE), ValueError, ("edges", "once")),
    Case("adapters", lambda: CrossModal(NAMES, hub("rgb", NAMES), 3), TypeError, ("adapters", "3")),
    Case(
        "adapters-same",
        lambda: CrossModal(NAMES, hub("rgb", NAMES), lambda: SHARED),
        ValueError,
        ("adapters", "2", "1"),
    ),
    Case("adapters-type", lambda: CrossModal(NAMES, hub("rgb", NAMES), lambda: 3), TypeError, ("adapters", "3")),
    Case(
        "adapters-edges",
        lambda: CrossModal(NAMES, hub("rgb", NAMES), {("rgb", "depth"): SHARED}),
        ValueError,
        ("adapters", "('depth', 'rgb')"),
    ),
    Case("tap-names", lambda: CrossModal(NAMES, (), MAKE, confidence={"ir": TAP}), ValueError, ("confidence", "'ir'")),
    Case("tap-map", lambda: CrossModal(NAMES, (), MAKE, confidence={"rgb": 3}), TypeError, ("confidence", "Tap")),
    Case("dict-name", lambda: CROSS({"ir": TOKENS}), ValueError, ("tokens", "'ir'", "'depth'")),
    Case("dict-empty", lambda: CROSS({}), ValueError, ("tokens", "[]")),
    Case("dict-axes", lambda: CROSS({"rgb": TOKENS[0]}), ValueError, ("tokens['rgb']", "(5, 16)")),
    Case(
        "dict-batch",
        lambda: CROSS({"rgb": TOKENS, "depth": TOKENS[:1]}),
        ValueError,
        ("tokens['depth']", "2", "(1, 5, 16)"),
    ),
    Case(
        "dict-trust",
        lambda: CROSS({"rgb": TOKENS, "depth": TOKENS}, {"rgb": torch.ones(2, 4)}),
        ValueError,
        ("confidence['rgb']", "(2, 5)", "(2, 4)"),
    ),
    Case(
        "trust-of-no-tokens",
        lambda: CROSS({"rgb": TOKENS}, {"depth": torch.ones(2, 5)}),
        ValueError,
        ("confidence", "'rgb'", "'depth'"),
    ),
    Case(
        "trust-as-a-batch",
        lambda: CROSS({"rgb": TOKENS}, torch.ones(4, 5)),
        ValueError,
        ("confidence", "mapping", "(4, 5)"),
    ),
    Case("present-type", lambda: CROSS(TOKENS, present=torch.ones(2, 1)), TypeError, ("present", "float32")),
    Case("present-shape", lambda: CROSS(TOKENS, present=HERE), ValueError, ("present", "(2, 1)", "(2, 3)")),
    Case("missing-model", lambda: told(SIDE, HERE), ValueError, ("model", "CrossModal", "Linear")),
    Case("missing-type", lambda: told(CROSS, [True]), TypeError, ("present", "[True]")),
    Case("missing-dtype", lambda: told(CROSS, HERE.float()), TypeError, ("present", "float32")),
    Case("missing-modalities", lambda: told(CROSS, HERE[:1]), ValueError, ("present", "m = 2", "(1, 3)")),
    Case("queries", lambda: GatedCrossAttention(16, queries="both"), ValueError, ("queries", "'both'")),
    Case("scale-word", lambda: GatedCrossAttention(16, scale="free"), TypeError, ("scale", "'learned'", "'free'")),
    Case("edges-none", lambda: CrossModal(NAMES, None, MAKE), TypeError, ("edges", "None")),
    Case("edges-nested", lambda: CrossModal(NAMES, [(["rgb"], "depth")], MAKE), ValueError, ("edges", "['rgb']")),
    Case(
        "adapters-container",
        lambda: CrossModal(NAMES, hub("rgb", NAMES), nn.ModuleDict({"a": SHARED})),
        ValueError,
        ("adapters", "mapping", "ModuleDict"),
    ),
    Case("missing-none", lambda: told(None, HERE), TypeError, ("model", "None")),
    Case("remove-none", lambda: remove(None), TypeError, ("model", "None")),
    Case(
        "even-kernel", lambda: central_difference(torch.ones(1, 1, 2, 3), 0.5), ValueError, ("weight", "(1, 1, 2, 3)")
    ),
    Case("kernel-list", lambda: CentralDifferenceConv2d(1, 1, [3, 4]), ValueError, ("kernel_size", "[3, 4]")),
    Case("side-tuple", lambda: Parallel(SIDE, Named())(torch.zeros(2, 3)), ValueError, ("side", "(2, 3)", "'out'")),
    Case(
        "unread",
        lambda: WIDE(TOKENS, torch.zeros(2, 5, 4), own_confidence=torch.ones(2, 5)),
        ValueError,
        ("own_confidence", "None", "'query'"),
    ),
    Case("input-of", lambda: Parallel(BASE, SIDE, input_of="x"), TypeError, ("input_of", "'x'")),
    Case("input-of-base", lambda: Parallel(SIDE, BASE, input_of=SIDE), ValueError, ("input_of", "another")),
    Case(
        "input-never",
        lambda: EARLY(torch.zeros(2, 3)),
        RuntimeError,
        ("input_of", "before each run of the base"),
    ),
    Case("tap-type", lambda: CrossModal(NAMES, (), MAKE, confidence=SIDE), TypeError, ("confidence", "Tap", "Linear")),
    Case("into", lambda: CROSS.into("ir"), ValueError, ("modality", "'ir'")),
    Case("batch", lambda: CROSS(torch.zeros(3, 5, 16)), ValueError, ("tokens", "m = 2", "(3, 5, 16)")),
    Case("trust", lambda: CROSS(TOKENS, torch.ones(2, 4)), ValueError, ("confidence", "(2, 5)", "(2, 4)")),
    Case("tap-shape", lambda: TAPPED(TOKENS), ValueError, ("confidence", "Tap", "(2, 5)", "(4, 5)")),
    Case("tap-early", lambda: TOO_LATE.value, RuntimeError, ("Tap.value", "has run")),
    Case("tap-module", lambda: Tap(torch.relu, torch.relu), TypeError, ("module",)),
    Case("tap-fn", lambda: Tap(BASE, 0.5), TypeError, ("fn", "0.5")),
    Case("base", lambda: Parallel(torch.relu, SIDE), TypeError, ("base",)),
    Case("side", lambda: Parallel(SIDE, torch.relu), TypeError, ("side",)),
    Case("scale", lambda: Parallel(nn.Identity(), SIDE, scale="2"), TypeError, ("scale", "'2'")),
    Case("side-clash", lambda: Parallel(CLASH, SIDE), ValueError, ("base", "side")),
    Case("side-twice", lambda: Parallel(TWICE, SIDE), ValueError, ("base", "side")),
    Case(
        "base-dict",
        lambda: Parallel(Named(), SIDE)(torch.zeros(2, 3)),
        TypeError,
        ("base", "a tensor", "'out': a float32 tensor of shape (2, 3)"),
    ),
    Case(
        "side-shape",
        lambda: NARROW(torch.zeros(2, 3)),
        ValueError,
        ("side", "(2, 3)", "(2, 1)"),
    ),
    Case("q-list", lambda: gated_attention([1.0], QKV, QKV), TypeError, ("q", "'b h n d'", "[1.0]")),
    Case("q-axes", lambda: gated_attention(QKV[0], QKV, QKV), ValueError, ("q", "'b h n d'", "(1, 3, 4)")),
    Case("k-integers", lambda: gated_attention(QKV, QKV.long(), QKV), TypeError, ("k", "int64")),
    Case("k-width", lambda: gated_attention(QKV, QKV[..., :2], QKV), ValueError, ("k", "(2, 1, 3, 4)", "(2, 1, 3, 2)")),
    Case("k-batch", lambda: gated_attention(QKV, QKV[:1], QKV), ValueError, ("k", "(2, 1, 3, 4)", "(1, 1, 3, 4)")),
    Case(
        "v-count", lambda: gated_attention(QKV, QKV, QKV[:, :, :2]), ValueError, ("v", "(2, 1, 3, 4)", "(2, 1, 2, 4)")
    ),
    Case("v-none", lambda: gated_attention(QKV, QKV, None), TypeError, ("v", "None")),
    Case("v-elsewhere", lambda: gated_attention(QKV, QKV, QKV.to("meta")), ValueError, ("v", "on cpu", "on meta")),
    Case("attention-list", lambda: gated_attention(QKV, QKV, QKV, [1.0]), TypeError, ("confidence", "[1.0]")),
    Case("attention-mask", lambda: gated_attention(QKV, QKV, QKV, TRUST > 0), TypeError, ("confidence", "bool")),
    Case(
        "attention-away",
        lambda: gated_attention(QKV, QKV, QKV, TRUST.to("meta")),
        ValueError,
        ("confidence", "on meta"),
    ),
    Case("own-list", lambda: SHARED([1.0], TOKENS), TypeError, ("own", "[1.0]")),
    Case("other-elsewhere", lambda: SHARED(TOKENS, TOKENS.to("meta")), ValueError, ("other", "on cpu", "on meta")),
    Case(
        "confidence-elsewhere",
        lambda: SHARED(TOKENS, TOKENS, torch.ones(2, 5, device="meta")),
        ValueError,
        ("confidence", "on meta"),
    ),
    Case("scale-nan", lambda: GatedCrossAttention(16, scale=float("nan")), ValueError, ("scale", "nan")),
    Case("heads-bool", lambda: GatedCrossAttention(16, heads=True), TypeError, ("heads", "True")),
    Case(
        "dict-elsewhere",
        lambda: CROSS({"rgb": TOKENS, "depth": TOKENS.to("meta")}),
        ValueError,
        ("tokens['depth']", "on cpu", "on meta"),
    ),
    Case(
        "trust-elsewhere",
        lambda: CROSS({"rgb": TOKENS}, {"rgb": torch.ones(2, 5, device="meta")}),
        ValueError,
        ("confidence['rgb']", "on meta"),
    ),
    Case(
        "present-elsewhere",
        lambda: CROSS(TOKENS, present=torch.ones(2, 1, device="meta") > 0),
        ValueError,
        ("present", "on meta"),
    ),
    Case("present-list", lambda: CROSS(TOKENS, present=[[True], [True]]), TypeError, ("present", "[True]")),
    Case("weight-array", lambda: central_difference(np.ones((1, 1, 3, 3)), 0.5), TypeError, ("weight", "ndarray")),
    Case(
        "weight-axes", lambda: central_difference(KERNEL[0], 0.5), ValueError, ("weight", "'o i kh kw'", "(16, 3, 3)")
    ),
    Case("weight-integers", lambda: central_difference(KERNEL.long(), 0.5), TypeError, ("weight", "int64")),
    Case("difference-theta", lambda: central_difference(KERNEL, 1.5), ValueError, ("theta", "[0.0, 1.0]", "1.5")),
    Case("difference-theta-nan", lambda: central_difference(KERNEL, float("nan")), ValueError, ("theta", "nan")),
    Case("difference-theta-list", lambda: central_difference(KERNEL, [0.5]), TypeError, ("theta", "[0.5]")),
    Case("kernel-zero", lambda: CentralDifferenceConv2d(1, 1, 0), ValueError, ("kernel_size", "at least 1", "0")),
    Case("kernel-float", lambda: CentralDifferenceConv2d(1, 1, 3.0), TypeError, ("kernel_size", "3.0")),
    Case("kernel-word", lambda: CentralDifferenceConv2d(1, 1, "3x3"), TypeError, ("kernel_size", "'3x3'")),
    Case("convolve-list", lambda: convolve_tokens([1.0], KERNEL, 2), TypeError, ("tokens", "[1.0]")),
    Case("convolve-axes", lambda: convolve_tokens(TOKENS[0], KERNEL, 2), ValueError, ("tokens", "'b n i'", "(5, 16)")),
    Case(
        "convolve-width",
        lambda: convolve_tokens(TOKENS[..., :8], KERNEL, 2),
        ValueError,
        ("kernel", "(16, 8, 3, 3)", "(16, 16, 3, 3)"),
    ),
    Case(
        "convolve-even",
        lambda: convolve_tokens(TOKENS, KERNEL[..., :2], 2),
        ValueError,
        ("kernel", "odd sides", "(16, 16, 3, 2)"),
    ),
    Case("convolve-kernel", lambda: convolve_tokens(TOKENS, 3, 2), TypeError, ("kernel", "found 3")),
    Case("convolve-grid", lambda: convolve_tokens(TOKENS, KERNEL, (2, 2, 2)), ValueError, ("grid", "(2, 2, 2)")),
    Case("convolve-prefix", lambda: convolve_tokens(TOKENS, KERNEL, 2, prefix=1.0), TypeError, ("prefix", "1.0")),
    Case(
        "convolve-elsewhere", lambda: convolve_tokens(TOKENS, KERNEL.to("meta"), 2), ValueError, ("kernel", "on meta")
    ),
    Case("ring-string", lambda: ring("rgb"), TypeError, ("modalities", "'rgb'")),
    Case("ring-twice", lambda: ring(("a", "a")), ValueError, ("modalities", "('a', 'a')")),
    Case("complete-numbers", lambda: complete((0, 1)), TypeError, ("modalities", "(0, 1)")),
    Case("complete-nothing", lambda: complete(()), ValueError, ("modalities", "()")),
    Case("side-clash-hook", lambda: Parallel(CLASH, SIDE, input_of=BASE), ValueError, ("base", "side")),
    Case("parallel-nan", lambda: Parallel(BASE, SIDE, scale=float("nan")), ValueError, ("scale", "nan")),
    Case("tap-none", lambda: TAP_OF_NOTHING(torch.ones(1, 3)), TypeError, ("fn", "a tensor", "None")),
    Case("remove-string", lambda: remove("model"), TypeError, ("model", "'model'")),
]
