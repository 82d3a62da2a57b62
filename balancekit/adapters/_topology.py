"""Topologies: which modality listens to which, as pairs (source, target)."""

from collections.abc import Iterable, Sequence

from balancekit._checks import expect, expect_choice
from balancekit.adapters._by_modality import modality_names

Edge = tuple[str, str]


def hub(center: str, modalities: Sequence[str]) -> tuple[Edge, ...]:
    """Edges (source, target) between a centre and each other modality, in both directions.

    Example:
        >>> hub("rgb", ("rgb", "depth", "ir"))
        (('rgb', 'depth'), ('depth', 'rgb'), ('rgb', 'ir'), ('ir', 'rgb'))
    """
    names = modality_names(modalities)
    expect_choice("center", center, names)
    return tuple(edge for name in names if name != center for edge in ((center, name), (name, center)))


def ring(modalities: Sequence[str]) -> tuple[Edge, ...]:
    """Edges (source, target) from each modality to the next, and from the last to the first: one adapter a modality.

    Example:
        >>> ring(("rgb", "depth", "ir"))
        (('rgb', 'depth'), ('depth', 'ir'), ('ir', 'rgb'))
    """
    names = modality_names(modalities)
    return tuple(zip(names, (*names[1:], names[0]), strict=True)) if len(names) > 1 else ()


def complete(modalities: Sequence[str]) -> tuple[Edge, ...]:
    """Edges (source, target) from each modality to every other.

    Example:
        >>> complete(("audio", "video"))
        (('audio', 'video'), ('video', 'audio'))
    """
    names = modality_names(modalities)
    return tuple((source, target) for source in names for target in names if source != target)


def as_edges(edges: Iterable[Edge], names: tuple[str, ...]) -> tuple[Edge, ...]:
    """Check edges between the modalities `names`."""
    expect(isinstance(edges, Iterable), "edges", "pairs (source, target)", edges, error=TypeError)
    edges = tuple(edges)
    for edge in edges:
        fit = isinstance(edge, tuple) and len(edge) == 2 and all(name in names for name in edge) and edge[0] != edge[1]
        expect(fit, "edges", f"pairs (source, target) of two different names among {names}", edge)
    keys = {edge_name(edge) for edge in edges}
    expect(len(keys) == len(edges), "edges", "each edge once, and names that 'source_to_target' tells apart", edges)
    return edges


def edge_name(edge: Edge) -> str:
    """Name of a module along the edge."""
    return "_to_".join(edge)
