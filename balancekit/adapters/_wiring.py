"""Which modality listens to which: adapters along edges, the deltas of a receiver added up.

MMDG (arXiv 2402.19298), Eq. 1-3, is :func:`hub` around RGB. With A the adapter, u the confidence:

    delta[target] = Σ over edges (source, target) of A(own = tokens[target], other = tokens[source], u[source])
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_choice
from balancekit._typing import Bool, Float
from balancekit.adapters._by_modality import (
    confidence_by_modality,
    filled,
    present_by_modality,
    tokens_by_modality,
)
from balancekit.adapters._missing import Modal
from balancekit.adapters._tap import Tap
from balancekit.adapters._topology import Edge, as_edges, edge_name


class CrossModal(Modal):
    """Adapters along the edges between modalities.

    The tokens come as one batch "(m b) n d", all samples of the first modality, then all of the second, and so on, as
    they travel through one shared backbone; or as a dict of "b n d" from separate ones, with widths and numbers of
    tokens of their own. A modality without an incoming edge gets a delta of exact zeros; edges that are not listed
    exchange nothing. A modality that a dict lacks, or a sample lacks by :func:`missing`, takes no part.

    Args:
        modalities: names, in the order of the batch.
        edges: pairs (source, target), as :func:`hub`, :func:`ring` and :func:`complete` make them: the target's delta
            depends on the source's tokens.
        adapters: a function that builds one adapter, called once an edge; or one module that all edges share; or the
            module of each edge in a mapping. An adapter is called as ``adapter(own, other, confidence)`` with the
            other's confidence. One that reads the own confidence says so in an attribute ``confidence_of``, a tuple of
            "own" and "other", and is given ``own_confidence=`` too.
        confidence: where the confidence comes from unless it is passed in: a Tap on the shared backbone, or one for
            each modality in a mapping. None: nothing is gated.

    Example:
        >>> from functools import partial
        >>> from balancekit.adapters import GatedCrossAttention, hub
        >>> names = ("rgb", "depth", "ir")
        >>> cross = CrossModal(names, hub("rgb", names), partial(GatedCrossAttention, 16))
        >>> cross(torch.randn(3 * 2, 10, 16)).shape
        torch.Size([6, 10, 16])
        >>> list(cross.adapters)
        ['rgb_to_depth', 'depth_to_rgb', 'rgb_to_ir', 'ir_to_rgb']
        >>> len(cross.into("rgb")), len(cross.into("ir"))
        (2, 1)
        >>> asks = GatedCrossAttention(16, other_dim=12, queries="own")
        >>> cross = CrossModal(("image", "text"), [("text", "image")], asks)
        >>> delta = cross({"image": torch.randn(2, 10, 16), "text": torch.randn(2, 7, 12)})
        >>> {name: tuple(value.shape) for name, value in delta.items()}
        {'image': (2, 10, 16), 'text': (2, 7, 12)}
    """

    def __init__(
        self,
        modalities: Sequence[str],
        edges: Iterable[Edge],
        adapters: Callable[[], nn.Module] | nn.Module | Mapping[Edge, nn.Module],
        *,
        confidence: Tap | Mapping[str, Tap] | None = None,
    ) -> None:
        super().__init__(modalities)
        self.edges = as_edges(edges, self.modalities)
        self.adapters, self._key = _along(self.edges, adapters)
        # in a tuple, so that the tapped part of the backbone is no child of this one
        self._confidence = (_taps(confidence, self.modalities),)

    def into(self, modality: str) -> list[nn.Module]:
        """Return the adapters that write to `modality`; they belong to its branch, and are trained with it.

        One that several modalities share is in the list of each, and belongs to no branch alone.
        """
        expect_choice("modality", modality, self.modalities)
        return list(dict.fromkeys(self._adapter(edge) for edge in self.edges if edge[1] == modality))

    def forward(
        self,
        tokens: Float[Tensor, "mb n d"] | Mapping[str, Tensor],
        confidence: Float[Tensor, "mb n"] | Mapping[str, Tensor] | None = None,
        present: Bool[Tensor, "m b"] | None = None,
    ) -> Float[Tensor, "mb n d"] | dict[str, Tensor]:
        """Return the deltas of all modalities, in the form in which the tokens came.

        An explicit `confidence` outranks the Tap, an explicit `present` the block of :func:`missing`.
        """
        rows = tokens_by_modality(tokens, self.modalities)
        trust = self._trust(confidence, rows)
        here = present_by_modality(self._present if present is None else present, self.modalities, rows)
        rows = {name: filled(x, here.get(name)) for name, x in rows.items()}
        trust = {name: filled(u, here.get(name)) for name, u in trust.items()}
        deltas: dict[str, Tensor] = {}
        for source, target in self.edges:
            if source in rows and target in rows:
                delta = self._delta(self._adapter((source, target)), rows, trust, source, target)
                delta = filled(delta, here[source] & here[target] if here else None)
                deltas[target] = deltas[target] + delta if target in deltas else delta
        every = {name: deltas[name] if name in deltas else torch.zeros_like(x) for name, x in rows.items()}
        return every if isinstance(tokens, Mapping) else torch.cat(list(every.values()))

    def _trust(self, confidence: Tensor | Mapping[str, Tensor] | None, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        (taps,), argument = self._confidence, "confidence"
        if confidence is None and taps is not None:
            argument = "confidence, the value of the Tap"
            if isinstance(taps, Tap):
                confidence = taps.value
            else:
                confidence = {name: taps[name].value for name in rows if name in taps}
        return {} if confidence is None else confidence_by_modality(confidence, self.modalities, rows, argument)

    def _delta(
        self, adapter: nn.Module, rows: dict[str, Tensor], trust: dict[str, Tensor], source: str, target: str
    ) -> Tensor:
        read = getattr(adapter, "confidence_of", ("other",))
        own = {"own_confidence": trust.get(target)} if "own" in read else {}
        return adapter(rows[target], rows[source], trust.get(source) if "other" in read else None, **own)

    def _adapter(self, edge: Edge) -> nn.Module:
        return self.adapters[self._key[edge]]


def _along(
    edges: tuple[Edge, ...], adapters: Callable[[], nn.Module] | nn.Module | Mapping[Edge, nn.Module]
) -> tuple[nn.ModuleDict, dict[Edge, str]]:
    """Each adapter once, under the name of its first edge, and the name of each edge's adapter."""
    if isinstance(adapters, nn.Module):
        several = isinstance(adapters, nn.ModuleDict | nn.ModuleList)
        expect(not several, "adapters", "one module, a function, or a mapping from edges to modules", adapters)
        return nn.ModuleDict({"shared": adapters}), dict.fromkeys(edges, "shared")
    if isinstance(adapters, Mapping):
        expect(set(adapters) == set(edges), "adapters", f"one for each of the edges {edges}", list(adapters))
        along = {edge: adapters[edge] for edge in edges}
    else:
        expect(callable(adapters), "adapters", "a function, a module or a mapping", adapters, error=TypeError)
        along = {edge: adapters() for edge in edges}
    for adapter in along.values():
        expect(isinstance(adapter, nn.Module), "adapters", "torch.nn.Modules", adapter, error=TypeError)
    distinct = len(set(along.values()))
    fit = isinstance(adapters, Mapping) or distinct == len(edges)
    expect(fit, "adapters", f"{len(edges)} different adapters from the function", distinct)
    first: dict[int, str] = {}
    keys = {edge: first.setdefault(id(adapter), edge_name(edge)) for edge, adapter in along.items()}
    return nn.ModuleDict({keys[edge]: along[edge] for edge in edges}), keys


def _taps(confidence: Tap | Mapping[str, Tap] | None, names: tuple[str, ...]) -> Tap | dict[str, Tap] | None:
    if confidence is None or isinstance(confidence, Tap):
        return confidence
    expected = "a Tap, or a mapping from modalities to Taps"
    expect(isinstance(confidence, Mapping), "confidence", expected, confidence, error=TypeError)
    of_taps = all(isinstance(tap, Tap) for tap in confidence.values())
    expect(of_taps, "confidence", expected, dict(confidence), error=TypeError)
    expect(set(confidence) <= set(names), "confidence", f"Taps of the modalities {names}", list(confidence))
    return dict(confidence)
