"""What helps to predict, and is not predicted itself."""

import pytest
import torch
from torch import Tensor

from balancekit.uncertainty import CrossModalResidual


def tokens(count: int = 200) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(count, d, generator=generator) for d in (2, 3, 4))
    return {"a": a + c[:, :2], "b": b + a[:, :1], "c": c}


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_a_context_predicts_as_a_modality_does(covariance: str) -> None:
    data = tokens()
    as_context = CrossModalResidual({"a": 2, "b": 3}, context={"c": 4}, covariance=covariance)
    as_modality = CrossModalResidual({"a": 2, "b": 3, "c": 4}, covariance=covariance)
    for fitted in (as_context, as_modality):
        for step in (fitted.accumulate, fitted.calibrate):
            step(data)
            fitted.commit()
    for name in ("a", "b"):
        torch.testing.assert_close(as_context(data)[name], as_modality(data)[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(as_context.confidence(data)[name], as_modality.confidence(data)[name])
    assert list(as_context(data)) == list(as_context.confidence(data)) == ["a", "b"]


def test_one_modality_and_a_context_are_enough() -> None:
    data = tokens()
    fitted = CrossModalResidual({"a": 2}, context={"c": 4})
    fitted.accumulate({"a": data["a"], "c": data["c"]})
    fitted.commit()
    with_seam = {"a": data["a"].flip(0), "c": data["c"]}
    assert fitted(with_seam)["a"].mean() > 1.2 * fitted({"a": data["a"], "c": data["c"]})["a"].mean()


def test_the_context_is_required_at_every_call() -> None:
    fitted = CrossModalResidual({"a": 2, "b": 3}, context={"c": 4})
    with pytest.raises(ValueError, match="tokens: expected tokens of exactly a, b, c"):
        fitted.accumulate({"a": torch.ones(1, 2), "b": torch.ones(1, 3)})


def test_wrong_contexts() -> None:
    with pytest.raises(ValueError, match="context: expected names other than a, b"):
        CrossModalResidual({"a": 2, "b": 3}, context={"a": 4})
    with pytest.raises(ValueError, match="dims: expected two modalities or more, or one and a context"):
        CrossModalResidual({"a": 2})
    with pytest.raises(TypeError, match=r"context\['c'\]: expected an integer"):
        CrossModalResidual({"a": 2}, context={"c": 1.5})
