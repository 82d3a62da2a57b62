"""A wrapper that reads, saves and loads like the module inside it."""

from typing import Any, ClassVar

from torch import nn

from balancekit._keys import keep_keys


class Transparent(nn.Module):
    """Base of wrappers: what they lack is looked up in the wrapped child, and its state-dict keys stay what they were.

    Transformers read attributes of their blocks (``layer.self_attn.batch_first``), and go on doing so.
    """

    _child: ClassVar[str]

    def _keep_keys(self) -> None:
        """Call it when all children are registered."""
        keep_keys(self, self._child)

    def _unwrapped(self) -> nn.Module:
        """Undo what the wrapper did to other modules, and hand out the wrapped one."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == self._child:  # not there yet: being built, copied or unpickled
                raise
            return getattr(super().__getattr__(self._child), name)
