"""Wrong calls of the sample plans."""

import numpy as np
import torch

from balancekit.sampling import remix_assign, remix_batches, smv_copies, smv_plan, smv_values, smv_weights
from tests.unit.wrong_calls import Case

LABELS = torch.tensor([0, 1])
PAIR = {("a",): LABELS, ("v",): LABELS, ("a", "v"): LABELS}
LOGITS = torch.zeros(2, 3)

CASES = [
    Case("list", lambda: smv_values([LABELS], LABELS), TypeError, ("predictions", "mapping")),
    Case(
        "key-word", lambda: smv_values({"a": LABELS}, LABELS), TypeError, ("predictions", "tuples or frozensets", "'a'")
    ),
    Case("key-number", lambda: smv_values({(0,): LABELS}, LABELS), TypeError, ("predictions", "names", "(0,)")),
    Case("nothing", lambda: smv_values({}, LABELS), ValueError, ("predictions", "every subset", "[]")),
    Case(
        "missing-subset",
        lambda: smv_values({("a",): LABELS, ("v",): LABELS}, LABELS),
        ValueError,
        ("predictions", "every subset", "('v',)"),
    ),
    Case(
        "twice",
        lambda: smv_values({**PAIR, ("v", "a"): LABELS}, LABELS),
        ValueError,
        ("predictions", "once", "('v', 'a')"),
    ),
    Case(
        "empty-subset",
        lambda: smv_values({**PAIR, (): LABELS}, LABELS),
        ValueError,
        ("predictions", "but the empty one", "()"),
    ),
    Case(
        "name-twice",
        lambda: smv_values({("a",): LABELS, ("v", "v"): LABELS}, LABELS),
        ValueError,
        ("predictions", "once", "('v', 'v')"),
    ),
    Case(
        "unknown-name",
        lambda: smv_values({("a",): LABELS, ("v",): LABELS, ("a", "t"): LABELS}, LABELS),
        ValueError,
        ("predictions", "'t'"),
    ),
    Case(
        "shape",
        lambda: smv_values({**PAIR, ("v",): LABELS[:1]}, LABELS),
        ValueError,
        ("predictions[('v',)]", "(2,)", "(1,)"),
    ),
    Case(
        "dtype", lambda: smv_values({**PAIR, ("v",): LABELS / 2}, LABELS), TypeError, ("predictions[('v',)]", "float32")
    ),
    Case("labels-axes", lambda: smv_values(PAIR, LABELS[None]), ValueError, ("labels", "(b,)", "(1, 2)")),
    Case("labels-bool", lambda: smv_values(PAIR, LABELS > 0), TypeError, ("labels", "integers", "bool")),
    Case("labels-negative", lambda: smv_values(PAIR, LABELS - 1), ValueError, ("labels", "-1")),
    Case("labels-list", lambda: smv_values(PAIR, [0, 1]), TypeError, ("labels", "integer tensor", "[0, 1]")),
    Case("copies-integers", lambda: smv_copies(LABELS[None]), TypeError, ("values", "floating-point", "int64")),
    Case("copies-axes", lambda: smv_copies(torch.zeros(2)), ValueError, ("values", "(b, m)", "(2,)")),
    Case("weights-axes", lambda: smv_weights(torch.zeros(2)), ValueError, ("values", "(b, m)", "(2,)")),
    Case("weights-nothing", lambda: smv_weights(torch.zeros(0, 2)), ValueError, ("values", "at least one", "(0, 2)")),
    Case("plan-floats", lambda: smv_plan(torch.zeros(2, 2)), TypeError, ("copies", "integers", "float32")),
    Case("plan-axes", lambda: smv_plan(LABELS), ValueError, ("copies", "(b, m)", "(2,)")),
    Case("plan-negative", lambda: smv_plan(LABELS[:, None] - 1), ValueError, ("copies", "-1")),
    Case(
        "plan-no-modality",
        lambda: smv_plan(LABELS[:, None][:, :0]),
        ValueError,
        ("copies", "at least one modality", "(2, 0)"),
    ),
    Case("plan-list", lambda: smv_plan([[0, 1]]), TypeError, ("copies", "integer tensor", "[[0, 1]]")),
    Case("assign-list", lambda: remix_assign([torch.zeros(1, 2)]), TypeError, ("logits", "mapping")),
    Case("assign-nothing", lambda: remix_assign({}), ValueError, ("logits", "at least one", "{}")),
    Case(
        "assign-integers",
        lambda: remix_assign({"a": LABELS[None]}),
        TypeError,
        ("logits['a']", "floating-point", "int64"),
    ),
    Case(
        "assign-shapes",
        lambda: remix_assign({"a": torch.zeros(1, 2), "v": torch.zeros(1, 3)}),
        ValueError,
        ("logits['v']", "(1, 2)", "(1, 3)"),
    ),
    Case("batches-axes", lambda: remix_batches(LABELS[None], 2), ValueError, ("assignment", "(b,)", "(1, 2)")),
    Case("batches-floats", lambda: remix_batches(LABELS / 2, 2), TypeError, ("assignment", "integers", "float32")),
    Case("batches-list", lambda: remix_batches([0, 1], 2), TypeError, ("assignment", "integer tensor", "[0, 1]")),
    Case("batches-zero", lambda: remix_batches(LABELS, 0), ValueError, ("batch_size", "at least 1", "0")),
    Case("batches-float", lambda: remix_batches(LABELS, 2.0), TypeError, ("batch_size", "integer", "2.0")),
    Case(
        "elsewhere",
        lambda: smv_values({**PAIR, ("v",): LABELS.to("meta")}, LABELS),
        ValueError,
        ("predictions[('v',)]", "on cpu", "on meta"),
    ),
    Case("copies-list", lambda: smv_copies([[0.5]]), TypeError, ("values", "[[0.5]]")),
    Case("weights-array", lambda: smv_weights(np.ones((2, 2))), TypeError, ("values", "ndarray")),
    Case("plan-bool", lambda: smv_plan(LABELS[:, None] > 0), TypeError, ("copies", "integers", "bool")),
    Case(
        "assign-elsewhere",
        lambda: remix_assign({"a": LOGITS, "v": LOGITS.to("meta")}),
        ValueError,
        ("logits['v']", "on cpu", "on meta"),
    ),
    Case("assign-axes", lambda: remix_assign({"a": LOGITS[0]}), ValueError, ("logits['a']", "(b, c)", "(3,)")),
    Case(
        "batches-seed", lambda: remix_batches(LABELS, 2, generator=0), TypeError, ("generator", "torch.Generator", "0")
    ),
    Case("batches-bool", lambda: remix_batches(LABELS, True), TypeError, ("batch_size", "True")),
    Case("batches-negative", lambda: remix_batches(LABELS - 1, 2), ValueError, ("assignment", "-1 to 0")),
]
