"""A wrapper that reads, saves and loads like the module inside it."""

from typing import Any, ClassVar

from torch import nn
from torch.utils.hooks import RemovableHandle

from balancekit._keys import keep_keys


class Transparent(nn.Module):
    """Base of wrappers: what they lack is looked up and set in the wrapped child, whose state-dict keys stay.

    Transformers read and set attributes of their blocks (``layer.self_attn.batch_first``, ``block.attn.fused_attn =
    False``), and go on doing so. Private names stay with the wrapper.
    """

    _child: ClassVar[str]
    _handle: RemovableHandle | None = None  # of the hook that the wrapper has on another module

    def _wrap(self, child: nn.Module) -> None:
        """Register the child. Call it last: from then on attributes that the child has are set there."""
        self.add_module(self._child, child)
        keep_keys(self, self._child)

    def _unwrapped(self) -> nn.Module:
        """Take the hook away, and hand out the child."""
        if self._handle is not None:
            self._handle.remove()
        return self.get_submodule(self._child)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == self._child:  # not there yet: being built, copied or unpickled
                raise
            return getattr(super().__getattr__(self._child), name)

    def __setattr__(self, name: str, value: Any) -> None:
        child = self.__dict__.get("_modules", {}).get(self._child)
        private = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if child is None or private or name in self._modules or not hasattr(child, name):
            super().__setattr__(name, value)
        else:
            setattr(child, name, value)
