"""Other modes for a few passes: modes and buffers are as before afterwards, also when the model raises."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from balancekit.uncertainty._samples import changed, copy_tensors, count_writes


class Kept:
    """The modules of a model, with their modes and buffers as they are now."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [model]
        self._modes: list[bool] = []
        self._tables: list[dict[str, Tensor | None]] = []
        found = {model}
        for module in self._modules:  # grows meanwhile; ``model.modules()`` takes three times as long
            self._modes.append(module.training)
            self._tables.append(module._buffers)
            for child in module._modules.values():
                if child is not None and child not in found:
                    found.add(child)
                    self._modules.append(child)
        self.has_buffers = any(self._tables)
        self._names = list(map(dict, self._tables)) if self.has_buffers else [{}] * len(self._tables)
        buffers = [buffer for names in self._names for buffer in names.values()] if self.has_buffers else []
        self._contents = [(buffer, buffer.clone(), count_writes([buffer])) for buffer in buffers if buffer is not None]

    def devices(self) -> set[torch.device]:
        """Where parameters and buffers are."""
        tables = [*(module._parameters for module in self._modules), *self._tables]
        return {tensor.device for table in tables for tensor in table.values() if tensor is not None}

    def eval(self) -> None:
        """Eval mode for all modules."""
        for module in self._modules:
            _set_mode(module, False)

    def train_dropout(self, exclude: Sequence[type[nn.Module] | nn.Module]) -> None:
        """Train mode for all but normalisation with running statistics and `exclude`, with all that they contain."""
        types = (_NormBase, *[item for item in exclude if isinstance(item, type)])
        quiet: set[nn.Module] = set()
        for module in self._modules:
            if isinstance(module, types) or module in exclude:
                quiet.update(module.modules())
            elif not module.training:
                _set_mode(module, True)
        for module in quiet:
            _set_mode(module, False)

    def restore(self) -> None:
        """Put modes and buffers back."""
        for module, mode in zip(self._modules, self._modes, strict=True):
            if module.training is not mode:
                _set_mode(module, mode)
        if self.has_buffers or any(self._tables):
            self.restore_buffers()

    def restore_buffers(self, output: Any = None) -> Any:
        """Put buffers back; return the output, copied if it may be one of those that were written to."""
        for table, names in zip(self._tables, self._names, strict=True):
            table.clear()
            table.update(names)  # as they were: also those that were None, and none besides
        written = [i for i, (_, _, counts) in enumerate(self._contents) if changed(counts)]
        if written:
            output = copy_tensors(output)
        for i in written:  # one that nobody wrote to may be part of a graph
            buffer, before, _ = self._contents[i]
            with torch.no_grad():
                buffer.copy_(before)
            self._contents[i] = buffer, before, count_writes([buffer])
        return output


def _set_mode(module: nn.Module, mode: bool) -> None:
    if type(module).__setattr__ is nn.Module.__setattr__:
        module.__dict__["training"] = mode  # a twentieth of the time: no search among parameters and children
    else:
        module.training = mode  # compiled and scripted modules hand it on
