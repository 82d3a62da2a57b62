"""A tap on a module: what a function makes of its last output, for others to read.

MMDG (arXiv 2402.19298), Fig. 3, estimates the uncertainty of a block's attention output and uses it in the adapter
beside the block's MLP: a Tap carries it there without a line of the block being rewritten.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from balancekit._checks import expect
from balancekit.adapters._transparent import Transparent


class Tap(Transparent):
    """Keep ``fn(output)``, detached, of the last run of `module`.

    The tap listens from the moment it is made, so ``tap = Tap(block.attn, fn)`` is enough. It may also take the
    module's place (``block.attn = Tap(block.attn, fn)``): it then runs the module, under the same state-dict keys.
    Make it before ``torch.compile``, which ignores later hooks. It listens as long as the module lives, or until
    :meth:`remove`. Its value is that of the last run, whichever batch that was: what reads it must run in the same
    pass, and in the same stretch under gradient checkpointing. Copies and pickles leave the value behind; a copy of the
    whole model has a Tap of its own.

    Args:
        module: the module to listen to.
        fn: from the module's whole output (a tuple for :class:`torch.nn.MultiheadAttention` and many Hugging Face
            modules) to one tensor; for a :class:`CrossModal`, to a confidence "(m b) n". It runs without gradients. To
            pickle the model it must be picklable (no lambda).

    Example:
        >>> attention = nn.MultiheadAttention(8, 2, batch_first=True)
        >>> tap = Tap(attention, lambda output: torch.exp(-output[0].abs()).mean(-1))
        >>> x = torch.randn(2, 5, 8)
        >>> _ = attention(x, x, x)
        >>> tap.value.shape, tap.value.requires_grad
        (torch.Size([2, 5]), False)
    """

    _child: ClassVar[str] = "module"

    def __init__(self, module: nn.Module, fn: Callable[[Any], Tensor]) -> None:
        super().__init__()
        expect(isinstance(module, nn.Module), "module", "a torch.nn.Module", module, error=TypeError)
        expect(callable(fn), "fn", "a function of the module's output", fn, error=TypeError)
        self.fn = fn
        self._value: Tensor | None = None
        self._handle = module.register_forward_hook(self._listen)
        self._wrap(module)

    @property
    def value(self) -> Tensor:
        """What `fn` made of the last output.

        Raises:
            RuntimeError: if the module has not run since the tap was made, copied or loaded.
        """
        remedy = "a tapped module that has run: make the Tap before compiling, and copy the model as a whole"
        expect(self._value is not None, "Tap.value", remedy, None, error=RuntimeError)
        assert self._value is not None
        return self._value

    def remove(self) -> None:
        """Stop listening. A tap that took the module's place still runs it; :func:`remove` puts the module back."""
        self._unwrapped()

    def _listen(self, module: nn.Module, args: Any, output: Any) -> None:
        with torch.no_grad():
            value = self.fn(output)
        expect(isinstance(value, Tensor), "fn", "a function that returns a tensor", value, error=TypeError)
        self._value = value.detach()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module; its hook keeps the value."""
        return self.module(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_value": None}
