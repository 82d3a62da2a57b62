"""Which modality listens to which: one adapter per edge, the deltas of a receiver added up.

MMDG (arXiv 2402.19298), Eq. 1-3, is :func:`hub` around RGB. With A the adapter, u the confidence:

    delta[target] = Σ over edges (source, target) of A(own = tokens[target], other = tokens[source], u[source])
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_choice, expect_floating, expect_shape
from balancekit._typing import Float
from balancekit.adapters._tap import Tap

Edge = tuple[str, str]


def hub(center: str, modalities: Sequence[str]) -> tuple[Edge, ...]:
    """Edges (source, target) between a centre and each other modality, in both directions.

    Example:
        >>> hub("rgb", ("rgb", "depth", "ir"))
        (('rgb', 'depth'), ('depth', 'rgb'), ('rgb', 'ir'), ('ir', 'rgb'))
    """
    names = _names(modalities)
    expect_choice("center", center, names)
    return tuple(edge for name in names if name != center for edge in ((center, name), (name, center)))


class CrossModal(nn.Module):
    """Adapters along the edges between modalities that travel as one batch "(m b) n d" through a shared backbone.

    The batch holds all samples of the first modality, then all of the second, and so on. A modality without an incoming
    edge gets a delta of exact zeros; edges that are not listed exchange nothing.

    Args:
        modalities: names, in the order of the batch.
        edges: pairs (source, target): the target's delta depends on the source's tokens.
        make: builds one adapter, ``adapter(own, other, confidence) -> delta``; called once an edge. An adapter that
            wants the confidence of its own tokens says ``confidence_of = "own"`` (:class:`GatedCrossAttention` with a
            key gate does); otherwise it is handed the source's.
        confidence: where the confidence comes from unless it is passed in; None: nowhere, nothing is gated.

    Example:
        >>> from functools import partial
        >>> from balancekit.adapters import GatedCrossAttention
        >>> names = ("rgb", "depth", "ir")
        >>> cross = CrossModal(names, hub("rgb", names), partial(GatedCrossAttention, 16))
        >>> cross(torch.randn(3 * 2, 10, 16)).shape
        torch.Size([6, 10, 16])
        >>> list(cross.adapters)
        ['rgb_to_depth', 'depth_to_rgb', 'rgb_to_ir', 'ir_to_rgb']
        >>> len(cross.into("rgb")), len(cross.into("ir"))
        (2, 1)
    """

    def __init__(
        self,
        modalities: Sequence[str],
        edges: Iterable[Edge],
        make: Callable[[], nn.Module],
        *,
        confidence: Tap | None = None,
    ) -> None:
        super().__init__()
        self.modalities = _names(modalities)
        self.edges = _edges(edges, self.modalities)
        factory = callable(make) and not isinstance(make, nn.Module)
        expect(factory, "make", "a function that builds one adapter", make, error=TypeError)
        expect(confidence is None or isinstance(confidence, Tap), "confidence", "a Tap", confidence, error=TypeError)
        adapters = {f"{source}_to_{target}": make() for source, target in self.edges}
        for adapter in adapters.values():
            expect(isinstance(adapter, nn.Module), "make", "torch.nn.Modules from it", adapter, error=TypeError)
        distinct = len(set(adapters.values()))
        expect(distinct == len(self.edges), "make", f"{len(self.edges)} different adapters from it", distinct)
        self.adapters = nn.ModuleDict(adapters)
        self._confidence = (confidence,)  # in a tuple, so that the tapped part of the backbone is no child of this one

    def into(self, modality: str) -> list[nn.Module]:
        """Return the adapters that write to `modality`; they belong to its branch, and are trained with it."""
        expect_choice("modality", modality, self.modalities)
        pairs = zip(self.edges, self.adapters.values(), strict=True)
        return [adapter for (_, target), adapter in pairs if target == modality]

    def forward(
        self, tokens: Float[Tensor, "mb n d"], confidence: Float[Tensor, "mb n"] | None = None
    ) -> Float[Tensor, "mb n d"]:
        """Return the deltas of all modalities, in the order of the batch. An explicit `confidence` outranks the tap."""
        m = len(self.modalities)
        expect_floating("tokens", tokens, "'(m b) n d'", ndim=3)
        expect(tokens.shape[0] % m == 0, "tokens", f"a batch '(m b)' divisible by m = {m}", tokens)
        confidence = self._read(tokens, confidence)
        rows = self._by_modality(tokens)
        trust = {} if confidence is None else self._by_modality(confidence)
        deltas: dict[str, Tensor] = {}
        for (source, target), adapter in zip(self.edges, self.adapters.values(), strict=True):
            whose = target if getattr(adapter, "confidence_of", "other") == "own" else source
            delta = adapter(rows[target], rows[source], trust.get(whose))
            deltas[target] = deltas[target] + delta if target in deltas else delta
        return torch.cat([deltas[name] if name in deltas else torch.zeros_like(rows[name]) for name in rows])

    def _read(self, tokens: Tensor, confidence: Tensor | None) -> Tensor | None:
        (tap,), name = self._confidence, "confidence"
        if confidence is None and tap is not None:
            confidence, name = tap.value, "confidence, the value of the Tap"
        if confidence is not None:
            expect_floating(name, confidence, "'(m b) n'", ndim=2)
            expect_shape(name, confidence, tuple(tokens.shape[:2]))
        return confidence

    def _by_modality(self, batch: Tensor) -> dict[str, Tensor]:
        m = len(self.modalities)
        return dict(zip(self.modalities, batch.unflatten(0, (m, batch.shape[0] // m)).unbind(), strict=True))


def _names(modalities: Sequence[str]) -> tuple[str, ...]:
    several = isinstance(modalities, Sequence) and not isinstance(modalities, str)
    of_names = several and all(isinstance(name, str) for name in modalities)
    expect(of_names, "modalities", "a sequence of names", modalities, error=TypeError)
    names = tuple(modalities)
    fit = names and all(name and "." not in name for name in names) and len(set(names)) == len(names)
    expect(bool(fit), "modalities", "different, non-empty names without a dot", names)
    return names


def _edges(edges: Iterable[Edge], names: tuple[str, ...]) -> tuple[Edge, ...]:
    edges = tuple(edges)
    for edge in edges:
        fit = isinstance(edge, tuple) and len(edge) == 2 and set(edge) <= set(names) and edge[0] != edge[1]
        expect(fit, "edges", f"pairs (source, target) of two different names among {names}", edge)
    keys = {f"{source}_to_{target}" for source, target in edges}
    expect(len(keys) == len(edges), "edges", "each edge once, and names that 'source_to_target' tells apart", edges)
    return edges
