"""Wrong calls of balancekit.uncertainty."""

import torch
from torch import nn

from balancekit import uncertainty as u
from tests.unit.wrong_calls import Case


class _Scalar(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, training=self.training).sum()


class _Listed(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]


class _Numbered(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        return {0: x}


class _Swapped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, training=self.training).T


x, probs, weight = torch.ones(2, 4), torch.full((3, 2, 4), 0.25), torch.ones(5, 4)
integers = torch.ones(3, 2, 4, dtype=torch.long)
generator = torch.Generator()
dropout = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
linear, mixed = nn.Linear(4, 2), nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2).eval()])
bilinear, wider = nn.Bilinear(4, 4, 2), nn.Linear(4, 3)
tied = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
tied_too = nn.Sequential(tied[0], nn.Tanh())
pair = u.DeepEnsemble([nn.Linear(4, 2), nn.Linear(4, 2)], backend="vmap")

CASES = [
    # MCDropout
    Case("mc model", lambda: u.MCDropout(torch.relu), TypeError, ("model", "nn.Module")),  # type: ignore[arg-type]
    Case("mc one sample", lambda: u.MCDropout(dropout, 1), ValueError, ("samples", "at least 2", "1")),
    Case("mc half a sample", lambda: u.MCDropout(dropout, 2.5), TypeError, ("samples", "2.5")),  # type: ignore[arg-type]
    Case("mc chunk", lambda: u.MCDropout(dropout, chunk_size=0), ValueError, ("chunk_size", "0")),
    Case("mc exclude bare", lambda: u.MCDropout(dropout, exclude=dropout[2]), TypeError, ("exclude", "tuple")),  # type: ignore[arg-type]
    Case("mc exclude name", lambda: u.MCDropout(dropout, exclude=["2"]), TypeError, ("exclude", "'2'")),  # type: ignore[list-item]
    Case("mc exclude class", lambda: u.MCDropout(dropout, exclude=[int]), TypeError, ("exclude",)),  # type: ignore[list-item]
    Case("mc exclude other", lambda: u.MCDropout(dropout, exclude=[linear]), ValueError, ("exclude", "Linear")),
    Case("mc generator", lambda: u.MCDropout(dropout)(x, generator=3), TypeError, ("generator", "3")),  # type: ignore[arg-type]
    Case("mc no randomness", lambda: u.MCDropout(linear)(x), RuntimeError, ("model", "differ")),
    Case(
        "mc all excluded",
        lambda: u.MCDropout(dropout, exclude=[nn.Dropout])(x),
        RuntimeError,
        ("model", "bit-equal"),
    ),
    Case(
        "mc chunk without batch",
        lambda: u.MCDropout(dropout, chunk_size=2)(torch.ones(())),
        ValueError,
        ("chunk_size",),
    ),
    Case(
        "mc chunk of scalars",
        lambda: u.MCDropout(_Scalar(), chunk_size=2)(x, generator=torch.Generator()),
        ValueError,
        ("chunk_size", "2 rows"),
    ),
    Case("mc encoder", lambda: u.MCDropout(dropout, encoder=torch.relu), TypeError, ("encoder", "nn.Module")),  # type: ignore[arg-type]
    Case(
        "mc encoder of a list",
        lambda: u.MCDropout(dropout, encoder=_Listed())(x),
        TypeError,
        ("encoder", "a tuple or a dict"),
    ),
    Case(
        "mc encoder key", lambda: u.MCDropout(nn.ModuleDict({"encoder": linear}), encoder=tied), ValueError, ("model",)
    ),
    Case("mc backend", lambda: u.MCDropout(dropout, backend="jit"), ValueError, ("backend", "'jit'")),  # type: ignore[arg-type]
    Case("mc vmap of one", lambda: u.MCDropout(dropout, backend="vmap"), ValueError, ("chunk_size", "at least 2", "1")),
    Case("mc stream", lambda: u.MCDropout(dropout).stream(x, generator=3), TypeError, ("generator", "3")),  # type: ignore[arg-type]
    # DeepEnsemble
    Case("ensemble of none", lambda: u.DeepEnsemble([]), ValueError, ("members", "at least one")),
    Case("ensemble of functions", lambda: u.DeepEnsemble([torch.relu]), TypeError, ("members",)),  # type: ignore[list-item]
    Case("ensemble twice", lambda: u.DeepEnsemble([linear, linear]), ValueError, ("members", "weight", "0 and 1")),
    Case("ensemble tied", lambda: u.DeepEnsemble([tied, tied_too]), ValueError, ("members", "0.weight")),
    Case("ensemble backend", lambda: u.DeepEnsemble([linear], backend="jit"), ValueError, ("backend", "'jit'")),  # type: ignore[arg-type]
    Case(
        "vmap of two classes",
        lambda: u.DeepEnsemble([linear, bilinear], backend="vmap"),
        ValueError,
        ("members", "vmap"),
    ),
    Case(
        "vmap of two shapes",
        lambda: u.DeepEnsemble([linear, wider], backend="vmap"),
        ValueError,
        ("members", "vmap"),
    ),
    Case("vmap of two modes", lambda: u.DeepEnsemble(mixed, backend="vmap")(x), ValueError, ("members", "one mode")),
    Case("add a function", lambda: pair.add(torch.relu), TypeError, ("member", "nn.Module")),  # type: ignore[arg-type]
    Case("add a member again", lambda: pair.add(pair.members[1]), ValueError, ("member", "weight", "1 and 2")),
    Case("add another shape", lambda: pair.add(wider), ValueError, ("member", "vmap")),
    Case("build from a model", lambda: u.DeepEnsemble.build(3, 2, seed=0), TypeError, ("factory", "3")),  # type: ignore[arg-type]
    Case("build none", lambda: u.DeepEnsemble.build(lambda: nn.Linear(4, 2), 0, seed=0), ValueError, ("size", "0")),
    Case("build seed", lambda: u.DeepEnsemble.build(lambda: nn.Linear(4, 2), 2, seed=0.5), TypeError, ("seed",)),  # type: ignore[arg-type]
    Case(
        "build one object", lambda: u.DeepEnsemble.build(lambda: linear, 2, seed=0), ValueError, ("members", "weight")
    ),
    # features
    Case("std of integers", lambda: u.dropout_std(integers), TypeError, ("x", "int64")),
    Case("std of a list", lambda: u.dropout_std([1.0]), TypeError, ("x", "[1.0]")),  # type: ignore[arg-type]
    Case("std p", lambda: u.dropout_std(x, 1.0), ValueError, ("p", "[0.0, 1.0)", "1.0")),
    Case("std negative p", lambda: u.dropout_std(x, -0.1), ValueError, ("p", "-0.1")),
    Case("std samples", lambda: u.dropout_std(x, samples=1), ValueError, ("samples", "at least 2")),
    Case("std idle generator", lambda: u.dropout_std(x, generator=generator), ValueError, ("generator", "None")),
    Case("confidence axis", lambda: u.dropout_confidence(torch.ones(())), ValueError, ("x", '"... d"')),
    Case("confidence of no channel", lambda: u.dropout_confidence(torch.ones(2, 0)), ValueError, ("x", "(2, 0)")),
    Case("confidence p", lambda: u.dropout_confidence(x, 2), ValueError, ("p", "2")),
    Case("confidence rate", lambda: u.dropout_confidence(x, rate=0.0), ValueError, ("rate", "0.0")),
    Case("confidence samples", lambda: u.dropout_confidence(x, samples=True), TypeError, ("samples", "True")),
    Case("confidence method", lambda: u.dropout_confidence(x, method="loop"), ValueError, ("method", "'loop'")),  # type: ignore[arg-type]
    Case("confidence detach", lambda: u.dropout_confidence(x, detach=None), TypeError, ("detach", "None")),  # type: ignore[arg-type]
    Case("confidence idle generator", lambda: u.dropout_confidence(x, generator=generator), ValueError, ("generator",)),
    Case("exponential of integers", lambda: u.exponential_confidence(integers), TypeError, ("uncertainty", "int64")),
    Case("exponential rate", lambda: u.exponential_confidence(x, -1.0), ValueError, ("rate", "-1.0")),
    Case("exponential rate type", lambda: u.exponential_confidence(x, "1"), TypeError, ("rate", "'1'")),  # type: ignore[arg-type]
    # linear moments
    Case("moments x", lambda: u.linear_dropout_moments(torch.ones(()), weight), ValueError, ("x", '"... d"')),
    Case("moments weight", lambda: u.linear_dropout_moments(x, weight.T), ValueError, ("weight", "(4, 5)")),
    Case("moments weight axes", lambda: u.linear_dropout_moments(x, weight[0]), ValueError, ("weight", '"o d"')),
    Case("moments bias", lambda: u.linear_dropout_moments(x, weight, torch.ones(4)), ValueError, ("bias", "(5,)")),
    Case("moments p", lambda: u.linear_dropout_moments(x, weight, p=1.0), ValueError, ("p", "1.0")),
    Case(
        "moments covariance", lambda: u.linear_dropout_moments(x, weight, covariance="low"), ValueError, ("covariance",)
    ),  # type: ignore[arg-type]
    # measures
    *(
        case
        for measure in (u.predictive_entropy, u.expected_entropy, u.mutual_information, u.variation_ratio)
        for case in (
            Case(f"{measure.__name__} integers", lambda m=measure: m(integers), TypeError, ("probs", "int64")),
            Case(f"{measure.__name__} axes", lambda m=measure: m(probs[0, 0]), ValueError, ("probs", "s b c", "(4,)")),
            Case(f"{measure.__name__} no samples", lambda m=measure: m(probs[:0]), ValueError, ("probs", "(0, 2, 4)")),
        )
    ),
    Case("std seed", lambda: u.dropout_std(x, samples=3, generator=0), TypeError, ("generator", "0")),  # type: ignore[arg-type]
    Case(
        "confidence seed", lambda: u.dropout_confidence(x, method="sampled", generator=0), TypeError, ("generator", "0")
    ),  # type: ignore[arg-type]
    Case("std p of nan", lambda: u.dropout_std(x, float("nan")), ValueError, ("p", "nan")),
    Case("confidence p as a bool", lambda: u.dropout_confidence(x, True), TypeError, ("p", "True")),
    Case("exponential an array", lambda: u.exponential_confidence(x.numpy()), TypeError, ("uncertainty", "ndarray")),  # type: ignore[arg-type]
    Case(
        "moments weight elsewhere",
        lambda: u.linear_dropout_moments(x, weight.to("meta")),
        ValueError,
        ("weight", "on meta"),
    ),
    Case(
        "moments bias elsewhere",
        lambda: u.linear_dropout_moments(x, weight, weight[:, 0].to("meta")),
        ValueError,
        ("bias", "on meta"),
    ),
    Case("moments bias list", lambda: u.linear_dropout_moments(x, weight, [0.0] * 5), TypeError, ("bias", "[0.0")),  # type: ignore[arg-type]
    Case("ensemble of a number", lambda: u.DeepEnsemble(3), TypeError, ("members", "modules", "3")),  # type: ignore[arg-type]
    Case("ensemble of nobody", lambda: u.DeepEnsemble(None), TypeError, ("members", "None")),  # type: ignore[arg-type]
    Case("build half", lambda: u.DeepEnsemble.build(lambda: linear, 0.5, seed=0), TypeError, ("size", "0.5")),  # type: ignore[arg-type]
    # what is expected, to the letter
    *(
        Case(f"words {argument}: {expected}", call, error, (argument, f": expected {expected}, found "))
        for argument, expected, error, call in (
            ("uncertainty", 'a floating-point tensor "b ..."', TypeError, lambda: u.exponential_confidence(integers)),
            ("rate", "a number in (0.0, inf)", ValueError, lambda: u.exponential_confidence(x, 0.0)),
            ("rate", "a number in (0.0, inf)", ValueError, lambda: u.exponential_confidence(x, float("inf"))),
            ("rate", "a number in (0.0, inf)", ValueError, lambda: u.dropout_confidence(x, rate=0.0)),
            ("rate", "a number in (0.0, inf)", ValueError, lambda: u.dropout_confidence(x, rate=float("inf"))),
            ("x", 'a floating-point tensor "..."', TypeError, lambda: u.dropout_std(integers)),
            ("p", "a number in [0.0, 1.0)", ValueError, lambda: u.dropout_std(x, -1e-9)),
            ("samples", "an integer of at least 2", ValueError, lambda: u.dropout_std(x, samples=1)),
            ("x", 'a floating-point tensor "... d"', TypeError, lambda: u.dropout_confidence(integers)),
            ("p", "a number in [0.0, 1.0)", ValueError, lambda: u.dropout_confidence(x, 1.0)),
            ("p", "a number in [0.0, 1.0)", ValueError, lambda: u.dropout_confidence(x, -1e-9)),
            ("samples", "an integer of at least 2", ValueError, lambda: u.dropout_confidence(x, samples=1)),
            (
                "method",
                "one of 'expected', 'limit', 'sampled'",
                ValueError,
                lambda: u.dropout_confidence(x, method="mean"),  # type: ignore[arg-type]
            ),
            ("x", 'a floating-point tensor "... d"', TypeError, lambda: u.linear_dropout_moments(integers, weight)),
            (
                "weight",
                'a floating-point tensor "o d"',
                TypeError,
                lambda: u.linear_dropout_moments(x, torch.ones(5, 4).long()),
            ),
            (
                "weight",
                'a floating-point tensor "o d"',
                ValueError,
                lambda: u.linear_dropout_moments(x, torch.ones(1, 5, 4)),
            ),
            ("weight", "a tensor of shape (5, 3)", ValueError, lambda: u.linear_dropout_moments(x[:, :3], weight)),
            (
                "bias",
                'a floating-point tensor "o"',
                TypeError,
                lambda: u.linear_dropout_moments(x, weight, torch.ones(5).long()),
            ),
            (
                "bias",
                "a tensor of shape (5,)",
                ValueError,
                lambda: u.linear_dropout_moments(x, weight, torch.ones(5, 1)),
            ),
            ("p", "a number in [0.0, 1.0)", ValueError, lambda: u.linear_dropout_moments(x, weight, p=-1e-9)),
            (
                "covariance",
                "one of 'diag', 'full'",
                ValueError,
                lambda: u.linear_dropout_moments(x, weight, covariance="low-rank"),  # type: ignore[arg-type]
            ),
            ("probs", 'a floating-point tensor "s b c"', TypeError, lambda: u.predictive_entropy(integers)),
            ("probs", 'a floating-point tensor "s b c"', TypeError, lambda: u.expected_entropy(integers)),
            ("probs", 'a floating-point tensor "s b c"', TypeError, lambda: u.mutual_information(integers)),
            ("probs", 'a floating-point tensor "s b c"', TypeError, lambda: u.variation_ratio(integers)),
            (
                "probs",
                'a tensor "s b c" with at least one sample and one class',
                ValueError,
                lambda: u.predictive_entropy(probs[..., :0]),
            ),
            ("samples", "an integer of at least 2", ValueError, lambda: u.MCDropout(dropout, 1)),
            ("chunk_size", "an integer of at least 1", ValueError, lambda: u.MCDropout(dropout, chunk_size=0)),
            (
                "backend",
                "one of 'loop', 'vmap'",
                ValueError,
                lambda: u.MCDropout(dropout, backend="map"),  # type: ignore[arg-type]
            ),
            (
                "backend",
                "one of 'loop', 'vmap'",
                ValueError,
                lambda: u.DeepEnsemble([linear], backend="map"),  # type: ignore[arg-type]
            ),
            ("size", "an integer of at least 1", ValueError, lambda: u.DeepEnsemble.build(lambda: linear, 0, seed=0)),
        )
    ),
    Case("mc exclude a set", lambda: u.MCDropout(dropout, exclude={nn.Dropout}), TypeError, ("exclude", "tuple")),  # type: ignore[arg-type]
    Case("build seed of a bool", lambda: u.DeepEnsemble.build(lambda: linear, 1, seed=True), TypeError, ("seed",)),
    Case(
        "mc encoder of other keys",
        lambda: u.MCDropout(dropout, encoder=_Numbered())(x),
        TypeError,
        ("encoder", "strings as keys"),
    ),
    Case(
        "mc chunk of swapped axes",
        lambda: u.MCDropout(_Swapped(), chunk_size=3)(x, generator=torch.Generator()),
        ValueError,
        ("chunk_size", "3 samples times 2 rows", "(4, 6)"),
    ),
]
