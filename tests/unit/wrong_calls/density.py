import torch

from balancekit.uncertainty import CrossModalResidual, FeatureDensity
from tests.unit.wrong_calls import Case

X, Y = torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 1, 0])
PLAIN, BY_CLASS = FeatureDensity(3), FeatureDensity(3, classes=2)
BOTH = CrossModalResidual({"rgb": 3, "depth": 2})
TOKENS = {"rgb": X, "depth": X[:, :2]}
for module, arguments in ((PLAIN, (X,)), (BY_CLASS, (X, Y)), (BOTH, (TOKENS,))):
    module.accumulate(*arguments)
    module.commit()
    module.accumulate(*arguments)
    module.calibrate(*arguments)
TWO = {"a": 2, "b": 2}

AWAY = X.to("meta")

CASES = [
    Case("no width", lambda: FeatureDensity(0), ValueError, ("dim", "at least 1", "0")),
    Case("width as a float", lambda: FeatureDensity(3.0), TypeError, ("dim", "integer", "3.0")),
    Case("no such covariance", lambda: FeatureDensity(3, covariance="none"), ValueError, ("covariance", "'low-rank'")),
    Case("low rank without", lambda: FeatureDensity(3, covariance="low-rank"), TypeError, ("rank", "integer", "None")),
    Case(
        "rank of the width",
        lambda: FeatureDensity(3, covariance="low-rank", rank=3),
        ValueError,
        ("rank", "less than dim = 3", "3"),
    ),
    Case("rank of a diagonal", lambda: FeatureDensity(3, rank=2), ValueError, ("rank", "low-rank", "2")),
    Case("no classes", lambda: FeatureDensity(3, classes=0), ValueError, ("classes", "at least 1", "0")),
    Case("shrinkage of two", lambda: FeatureDensity(3, shrinkage=2.0), ValueError, ("shrinkage", "[0.0, 1.0]", "2.0")),
    Case("decay of nan", lambda: FeatureDensity(3, decay=float("nan")), ValueError, ("decay", "nan")),
    Case("features as a list", lambda: PLAIN([1.0]), TypeError, ("features", "(..., 3)", "[1.0]")),
    Case("integers", lambda: PLAIN.accumulate(X.long()), TypeError, ("features", "int64")),
    Case("another width", lambda: PLAIN.accumulate(X[:, :2]), ValueError, ("features", "(..., 3)", "(4, 2)")),
    Case("calibrate a scalar", lambda: PLAIN.calibrate(X[0, 0]), ValueError, ("features", "(..., 3)", "()")),
    Case("labels without classes", lambda: PLAIN.accumulate(X, Y), ValueError, ("labels", "None", "int64")),
    Case("no labels to fit", lambda: BY_CLASS.accumulate(X), TypeError, ("labels", "class", "None")),
    Case("labels as a list", lambda: BY_CLASS(X, [0, 1]), TypeError, ("labels", "(4,)", "[0, 1]")),
    Case("too few labels", lambda: BY_CLASS.calibrate(X, Y[:3]), ValueError, ("labels", "(4,)", "(3,)")),
    Case(
        "labels of more axes",
        lambda: BY_CLASS.accumulate(X, Y.expand(2, 4)),
        ValueError,
        ("labels", "(4,)", "(2, 4)"),
    ),
    Case("labels as floats", lambda: BY_CLASS.confidence(X, Y.float()), TypeError, ("labels", "float32")),
    Case("label too high", lambda: BY_CLASS.accumulate(X, Y + 1), ValueError, ("labels", "0 to 1", "1 to 2")),
    Case("dims as a list", lambda: CrossModalResidual([2, 3]), TypeError, ("dims", "mapping", "[2, 3]")),
    Case("one modality", lambda: CrossModalResidual({"rgb": 2}), ValueError, ("dims", "two", "'rgb'")),
    Case("a name that is none", lambda: CrossModalResidual({"a": 2, 1: 2}), TypeError, ("dims", "strings", "1")),
    Case("a width of zero", lambda: CrossModalResidual({"a": 2, "b": 0}), ValueError, ("dims['b']", "at least 1", "0")),
    Case("ridge below zero", lambda: CrossModalResidual(TWO, ridge=-1.0), ValueError, ("ridge", "[0.0, inf)", "-1.0")),
    Case(
        "residual of low rank",
        lambda: CrossModalResidual(TWO, covariance="low-rank"),
        ValueError,
        ("covariance", "'full'", "'low-rank'"),
    ),
    Case("residual that grows", lambda: CrossModalResidual(TWO, decay=1.1), ValueError, ("decay", "[0.0, 1.0]", "1.1")),
    Case("tokens as a tensor", lambda: BOTH(X), TypeError, ("tokens", "rgb, depth", "(4, 3)")),
    Case("a modality missing", lambda: BOTH.accumulate({"rgb": X}), ValueError, ("tokens", "depth", "['rgb']")),
    Case("a modality more", lambda: BOTH({**TOKENS, "ir": X}), ValueError, ("tokens", "exactly", "'ir'")),
    Case(
        "tokens as integers",
        lambda: BOTH.calibrate({**TOKENS, "depth": X[:, :2].long()}),
        TypeError,
        ("tokens['depth']", "(..., 2)", "int64"),
    ),
    Case(
        "tokens of another number",
        lambda: BOTH.accumulate({**TOKENS, "depth": X[:2, :2]}),
        ValueError,
        ("tokens['depth']", "(4, 2)", "(2, 2)"),
    ),
    Case(
        "tokens of another width",
        lambda: BOTH.confidence({**TOKENS, "rgb": X[:, :2]}),
        ValueError,
        ("tokens['rgb']", "(4, 3)", "(4, 2)"),
    ),
    Case("features elsewhere", lambda: PLAIN.accumulate(AWAY), ValueError, ("features", "on cpu", "on meta")),
    Case("calibrate elsewhere", lambda: PLAIN.calibrate(AWAY), ValueError, ("features", "on meta")),
    Case("labels elsewhere", lambda: BY_CLASS.accumulate(X, Y.to("meta")), ValueError, ("labels", "on cpu", "on meta")),
    Case("confidence elsewhere", lambda: BY_CLASS.confidence(X, Y.to("meta")), ValueError, ("labels", "on meta")),
    Case("features as an array", lambda: PLAIN(X.numpy()), TypeError, ("features", "ndarray")),
    Case("label negative", lambda: BY_CLASS(X, Y - 1), ValueError, ("labels", "0 to 1", "-1 to 0")),
    Case(
        "tokens elsewhere",
        lambda: BOTH.accumulate({"rgb": AWAY, "depth": X[:, :2]}),
        ValueError,
        ("tokens['rgb']", "on meta"),
    ),
    Case("width as a bool", lambda: FeatureDensity(True), TypeError, ("dim", "True")),
    Case("context with a clash", lambda: CrossModalResidual(TWO, context={"a": 4}), ValueError, ("context", "a, b")),
    Case(
        "context as a float",
        lambda: CrossModalResidual({"a": 2}, context={"c": 1.5}),
        TypeError,
        ("context['c']", "1.5"),
    ),
    # what is expected, to the letter
    *(
        Case(f"words {argument}: {expected}", call, error, (argument, f": expected {expected}, found "))
        for argument, expected, error, call in (
            ("dim", "an integer of at least 1", ValueError, lambda: FeatureDensity(0)),
            ("covariance", "one of 'diag', 'full', 'low-rank'", ValueError, lambda: FeatureDensity(3, covariance="")),
            (
                "rank",
                "an integer of at least 1",
                ValueError,
                lambda: FeatureDensity(3, covariance="low-rank", rank=0),
            ),
            ("rank", 'None unless covariance is "low-rank"', ValueError, lambda: FeatureDensity(3, rank=0)),
            ("classes", "an integer of at least 1", ValueError, lambda: FeatureDensity(3, classes=0)),
            ("shrinkage", "a number in [0.0, 1.0]", ValueError, lambda: FeatureDensity(3, shrinkage=-1e-9)),
            ("shrinkage", "a number in [0.0, 1.0]", ValueError, lambda: FeatureDensity(3, shrinkage=1 + 1e-9)),
            ("decay", "a number in [0.0, 1.0]", ValueError, lambda: FeatureDensity(3, decay=-1e-9)),
            ("decay", "a number in [0.0, 1.0]", ValueError, lambda: FeatureDensity(3, decay=1 + 1e-9)),
            ("features", "a floating-point tensor of shape (..., 3)", TypeError, lambda: PLAIN(Y)),
            ("features", "a tensor of shape (..., 3)", ValueError, lambda: PLAIN(X[:, :1])),
            ("labels", "integers from 0 to 1", ValueError, lambda: BY_CLASS(X, Y + 1)),
            ("context['c']", "an integer of at least 1", ValueError, lambda: CrossModalResidual(TWO, context={"c": 0})),
            ("dims['a']", "an integer of at least 1", ValueError, lambda: CrossModalResidual({"a": 0, "b": 1})),
            ("ridge", "a number in [0.0, inf)", ValueError, lambda: CrossModalResidual(TWO, ridge=-1e-9)),
            ("ridge", "a number in [0.0, inf)", ValueError, lambda: CrossModalResidual(TWO, ridge=float("inf"))),
            ("covariance", "one of 'diag', 'full'", ValueError, lambda: CrossModalResidual(TWO, covariance="")),
            ("decay", "a number in [0.0, 1.0]", ValueError, lambda: CrossModalResidual(TWO, decay=-1e-9)),
            ("decay", "a number in [0.0, 1.0]", ValueError, lambda: CrossModalResidual(TWO, decay=1 + 1e-9)),
            (
                "tokens['depth']",
                "a floating-point tensor of shape (..., 2)",
                TypeError,
                lambda: BOTH({**TOKENS, "depth": Y}),
            ),
            ("tokens['depth']", "a tensor of shape (4, 2)", ValueError, lambda: BOTH({**TOKENS, "depth": X})),
        )
    ),
    Case("no modality", lambda: CrossModalResidual({}, context=TWO), ValueError, ("dims", "two modalities or more")),
    Case("context as a list", lambda: CrossModalResidual(TWO, context=[2]), TypeError, ("context", "mapping", "[2]")),
    Case("a context that is none", lambda: CrossModalResidual(TWO, context={1: 2}), TypeError, ("context", "strings")),
]
