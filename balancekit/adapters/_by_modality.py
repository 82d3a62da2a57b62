"""What comes in, by modality: tokens and confidences as one batch "(m b) ..." or as a dict, and who is present."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_shape

Names = tuple[str, ...]


def modality_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """Check names of modalities: several different strings, without dots, since modules are named after them."""
    several = isinstance(modalities, Sequence) and not isinstance(modalities, str)
    of_names = several and all(isinstance(name, str) for name in modalities)
    expect(of_names, "modalities", "a sequence of names", modalities, error=TypeError)
    names = tuple(modalities)
    fit = names and all(name and "." not in name for name in names) and len(set(names)) == len(names)
    expect(bool(fit), "modalities", "different, non-empty names without a dot", names)
    return names


def tokens_by_modality(tokens: Tensor | Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Tokens "b n d" of each modality, in the order of `names`."""
    if not isinstance(tokens, Mapping):
        m = len(names)
        expect_floating("tokens", tokens, "'(m b) n d'", ndim=3)
        dense = "a dense tensor: make torch.nn.TransformerEncoder with enable_nested_tensor=False"
        expect(not tokens.is_nested, "tokens", dense, "a nested one")
        expect(tokens.shape[0] % m == 0, "tokens", f"a batch '(m b)' divisible by m = {m}", tokens)
        return _split(tokens, names)
    known = len(tokens) > 0 and set(tokens) <= set(names)
    expect(known, "tokens", f"some of the modalities {names}", list(tokens))
    rows = {name: tokens[name] for name in names if name in tokens}
    for name, x in rows.items():
        expect_floating(f"tokens[{name!r}]", x, "'b n d'", ndim=3)
        first = next(iter(rows.values()))
        b = first.shape[0]
        expect(x.shape[0] == b, f"tokens[{name!r}]", f"a batch of {b} as the first modality has", x)
        expect_device(f"tokens[{name!r}]", x, first)
    return rows


def confidence_by_modality(
    confidence: Tensor | Mapping[str, Tensor], names: Names, rows: dict[str, Tensor], argument: str
) -> dict[str, Tensor]:
    """Confidences "b n" of the tokens in `rows`, of those modalities that have one."""
    if not isinstance(confidence, Mapping):
        expect_floating(argument, confidence, "'(m b) n'", ndim=2)
        b, n = next(iter(rows.values())).shape[:2]
        alike = len(rows) == len(names) and all(x.shape[1] == n for x in rows.values())
        expect(alike, argument, "a mapping, where modalities differ in tokens or are left out", confidence)
        expect_shape(argument, confidence, (len(names) * b, n))
        expect_device(argument, confidence, next(iter(rows.values())))
        return _split(confidence, names)
    expect(set(confidence) <= set(rows), argument, f"some of the modalities {tuple(rows)}", list(confidence))
    for name, u in confidence.items():
        expect_floating(f"{argument}[{name!r}]", u, "'b n'", ndim=2)
        expect_shape(f"{argument}[{name!r}]", u, tuple(rows[name].shape[:2]))
        expect_device(f"{argument}[{name!r}]", u, rows[name])
    return dict(confidence)


def present_by_modality(present: Tensor | None, names: Names, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """For each modality in `rows` which samples have it, "b"; nothing if all have all."""
    if present is None:
        return {}
    expect_present(present, len(names))
    first = next(iter(rows.values()))
    expect_shape("present", present, (len(names), first.shape[0]))
    expect_device("present", present, first)
    return {name: row for name, row in zip(names, present.unbind(), strict=True) if name in rows}


def expect_present(present: object, m: int) -> None:
    """Require a boolean tensor "m b"."""
    expected = f"a boolean tensor 'm b' with m = {m}"
    expect(isinstance(present, Tensor) and present.dtype == torch.bool, "present", expected, present, error=TypeError)
    assert isinstance(present, Tensor)
    expect(present.ndim == 2 and present.shape[0] == m, "present", expected, present)


def filled(x: Tensor, here: Tensor | None) -> Tensor:
    """Zeros in place of the samples that are not here, whatever they hold."""
    return x if here is None else torch.where(here.view(-1, *[1] * (x.ndim - 1)), x, 0.0)


def _split(batch: Tensor, names: Names) -> dict[str, Tensor]:
    m = len(names)
    return dict(zip(names, batch.unflatten(0, (m, batch.shape[0] // m)).unbind(), strict=True))
