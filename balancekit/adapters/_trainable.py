"""What trains: freeze a model but for some parts, and see in a table what is left.

A row of the table is a largest module all of whose parameters train, or a lone parameter that trains outside of them:

    share = parameters of the row / parameters of the model        a tied tensor counts once, where it occurs first
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import nn

from balancekit._checks import expect
from balancekit.adapters._transparent import Transparent
from balancekit.branches import Target

Part = nn.Module | nn.Parameter


class Row(NamedTuple):
    """A module or parameter that trains: how many tensors and numbers, and their share of the model in [0, 1].

    The name is the dotted path in the model ("": the model itself), and can be handed to :func:`train_only`. What is
    inside the base of a :class:`Parallel` or the module of a :class:`Tap` is named as in the state dict, as if the
    wrapper were not there.
    """

    name: str
    tensors: int
    parameters: int
    share: float


class Trainable(NamedTuple):
    """What trains in a model. ``print`` it; or compare `total` with `model`, the count of everything."""

    rows: tuple[Row, ...]
    total: Row
    model: Row

    def __str__(self) -> str:
        head = ("trains", "tensors", "parameters", "share")
        lines = [head, *(_cells(row) for row in (*self.rows, self.total))]
        name, *numbers = (max(map(len, column)) for column in zip(*lines, strict=True))
        aligned = ("  ".join([line[0].ljust(name), *map(str.rjust, line[1:], numbers)]) for line in lines)
        return "\n".join(aligned) + f" of {self.model.parameters:,}"


def train_only(model: nn.Module, *parts: Target) -> Trainable:
    """Freeze every parameter of the model but those of the parts, which train from now on.

    Call it when the adapters are in place, before the optimizer is made of ``[p for p in model.parameters() if
    p.requires_grad]``, and before DistributedDataParallel. Parameters that are no floating-point numbers (quantised
    weights) cannot train, and stay as they are. A tied tensor trains wherever it is used.

    Only ``requires_grad`` is set. It says nothing of the running statistics of BatchNorm, which a frozen layer goes on
    updating in training mode, nor of dropout in the frozen part: both are the business of ``eval()``.

    Args:
        model: any model.
        *parts: modules of the model, its parameters, or the exact dotted name of either; a pattern is no name.

    Returns:
        The table of what trains, which is that of :func:`trainable_table`.

    Raises:
        TypeError: for a part of another type (unpack a list of modules: ``*modules``).
        ValueError: without a part, or for a part that is not in the model or has nothing that can train. The model is
            then as it was.

    Example:
        >>> from balancekit.adapters import Parallel
        >>> layers = [nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)]
        >>> model = nn.ModuleDict({"encoder": nn.Sequential(*layers), "head": nn.Linear(16, 3)})
        >>> side = nn.Sequential(nn.Linear(16, 2), nn.Linear(2, 16))
        >>> model["encoder"][2] = Parallel(model["encoder"][2], side)
        >>> print(train_only(model, side, "head", model["encoder"][0].bias))
        trains          tensors  parameters    share
        encoder.0.bias        1          16   2.36 %
        encoder.2.side        4          82  12.11 %
        head                  2          51   7.53 %
        total                 7         149  22.01 % of 677
    """
    chosen: set[nn.Parameter] = set()
    for argument, part in find_parts(model, parts):
        own = {parameter for parameter in _parameters(part) if _can_train(parameter)}
        expect(len(own) > 0, argument, "a part with parameters that can train", part)
        chosen |= own
    table = _table(model, chosen)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in chosen)
    return table


def trainable_table(model: nn.Module) -> Trainable:
    """List what trains in a model: each largest module, or lone parameter, of which everything requires a gradient.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
        >>> trainable_table(model).rows
        (Row(name='', tensors=5, parameters=36, share=1.0),)
        >>> _ = model[0].requires_grad_(False)
        >>> print(trainable_table(model))
        trains  tensors  parameters    share
        1             2           8  22.22 %
        2             1           8  22.22 %
        total         3          16  44.44 % of 36
    """
    expect(isinstance(model, nn.Module), "model", "a torch.nn.Module", model, error=TypeError)
    return _table(model, {parameter for parameter in model.parameters() if parameter.requires_grad})


def find_parts(model: nn.Module, parts: tuple[Target, ...]) -> list[tuple[str, Part]]:
    """Find each part in the model, by identity or exact name, beside the argument that errors name."""
    expect(isinstance(model, nn.Module), "model", "a torch.nn.Module", model, error=TypeError)
    expect(len(parts) > 0, "parts", "at least one module, parameter or exact name", parts)
    inside = {id(thing) for thing in (*model.modules(), *model.parameters())}
    found: list[tuple[str, Part]] = []
    for place, given in enumerate(parts):
        argument, expected = f"parts[{place}]", "a module or parameter of the model, or the exact name of one"
        kind = type(given).__name__
        expect(isinstance(given, nn.Module | nn.Parameter | str), argument, expected, kind, error=TypeError)
        part = _named(model, given) if isinstance(given, str) else given
        expect(part is not None and id(part) in inside, argument, expected, given)
        assert part is not None
        found.append((argument, part))
    return found


def _named(model: nn.Module, name: str) -> Part | None:
    path, _, leaf = name.rpartition(".")
    try:
        found = getattr(model.get_submodule(path), leaf) if name else model
    except AttributeError:
        return None
    return found if isinstance(found, nn.Module | nn.Parameter) else None


def _parameters(part: Part) -> Iterable[nn.Parameter]:
    return part.parameters() if isinstance(part, nn.Module) else [part]


def _can_train(parameter: nn.Parameter) -> bool:
    return (parameter.is_floating_point() or parameter.is_complex()) and not parameter.is_inference()


def _table(model: nn.Module, trained: set[nn.Parameter]) -> Trainable:
    everything = list(model.parameters())
    whole = sum(parameter.numel() for parameter in everything)

    def count(name: str, parameters: Iterable[nn.Parameter]) -> Row:
        sizes = [parameter.numel() for parameter in parameters]
        return Row(name, len(sizes), sum(sizes), sum(sizes) / max(whole, 1))

    rows: list[Row] = []
    left = set(trained)
    for path, part in _largest(model, trained):
        own = left.intersection(_parameters(part))
        if own:  # else: all of them are tied to parameters of an earlier row
            rows.append(count(_plain(model, path, part), own))
            left -= own
    return Trainable(tuple(rows), count("total", trained), count("model", everything))


def _largest(module: nn.Module, trained: set[nn.Parameter], path: str = "") -> Iterator[tuple[str, Part]]:
    """The largest modules that train as a whole, and the parameters that train outside of them."""
    own = set(module.parameters())
    if own and own <= trained:
        yield path, module
        return
    prefix = f"{path}." if path else ""
    for name, parameter in module._parameters.items():
        if parameter is not None and parameter in trained:
            yield prefix + name, parameter
    for name, child in module.named_children():
        yield from _largest(child, trained, prefix + name)


def _plain(model: nn.Module, path: str, part: Part) -> str:
    """The path without the names of wrapped children, if it still leads to the part."""
    atoms: list[str] = []
    module = model
    for atom in filter(None, path.split(".")):
        if not (isinstance(module, Transparent) and atom == module._child):
            atoms.append(atom)
        module = getattr(module, atom)
    plain = ".".join(atoms)
    return plain if _named(model, plain) is part else path


def _cells(row: Row) -> tuple[str, str, str, str]:
    return row.name or "(model)", f"{row.tensors:,}", f"{row.parameters:,}", f"{row.share:.2%}".replace("%", " %")
