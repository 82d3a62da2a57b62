"""A module beside another: base(x) + scale · side(x), with the base's checkpoints still valid.

MMDG (arXiv 2402.19298), Eq. 1-3: the adapters' delta joins the output of a block's MLP, and reads what the MLP reads.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_number
from balancekit.adapters._transparent import Transparent


class Parallel(Transparent):
    """Add the output of `side` to that of `base`.

    The state-dict keys of the base stay as they were; those of the side start with ``side.``. The side takes the base's
    training mode, and the device and dtype of its first floating-point parameter, if it has one. :func:`remove` takes
    all of it away again.

    A parent that reads the base's weights instead of calling it leaves the side out: wrap an attention, not its
    ``out_proj``. (:class:`torch.nn.TransformerEncoderLayer` is kept from doing so.)

    Args:
        base: any module that returns a tensor, or a tuple that begins with one (attention, as a rule); the side joins
            that one. All arguments pass through; the side sees the first only. The base may not have a ``side`` of its
            own, so a second Parallel goes around another module, not around this one.
        side: a module from the base's input to a tensor of the shape of the base's output.
        scale: a fixed factor on the side.
        input_of: a module that runs exactly once before each run of the base: the side then sees its first input
            instead of the base's. This is how an adapter stands beside a stretch of a block that is no module of its
            own, such as the MLP of :class:`torch.nn.TransformerEncoderLayer`:
            ``layer.linear2 = Parallel(layer.linear2, side, input_of=layer.linear1)``.

    Example:
        >>> import torch
        >>> layer = nn.Linear(4, 4)
        >>> model = nn.Sequential(layer)
        >>> model[0] = Parallel(model[0], nn.Linear(4, 4))
        >>> list(model.state_dict())
        ['0.side.weight', '0.side.bias', '0.weight', '0.bias']
        >>> x = torch.randn(2, 4)
        >>> torch.equal(model(x), layer(x) + model[0].side(x))
        True
    """

    _child: ClassVar[str] = "base"

    def __init__(
        self, base: nn.Module, side: nn.Module, *, scale: float = 1.0, input_of: nn.Module | None = None
    ) -> None:
        super().__init__()
        expect(isinstance(base, nn.Module), "base", "a torch.nn.Module", base, error=TypeError)
        expect(isinstance(side, nn.Module), "side", "a torch.nn.Module", side, error=TypeError)
        expect_number("scale", scale)
        fit = input_of is None or isinstance(input_of, nn.Module)
        expect(fit, "input_of", "a torch.nn.Module", input_of, error=TypeError)
        expect(input_of is not base, "input_of", "another module than the base, whose input is read anyway", input_of)
        self.scale = scale
        self._read: Tensor | None = None
        self._reads_elsewhere = input_of is not None  # what a compiled graph can ask; the handle is not
        # torch.nn.TransformerEncoderLayer, in evaluation, reads its children's weights instead of calling them, unless
        # one of them has a hook: the side would be left out
        self.register_forward_pre_hook(_called)
        self.add_module("side", side)
        self._wrap(base)
        if input_of is not None:  # nothing can fail any more
            self._handle = input_of.register_forward_pre_hook(self._keep_input, with_kwargs=True)
        like = next((parameter for parameter in base.parameters() if parameter.is_floating_point()), None)
        if like is not None:
            side.to(device=like.device, dtype=like.dtype)
        side.train(base.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return base(x, …) + scale · side(x)."""
        out = self.base(*args, **kwargs)
        first: Any = out[0] if isinstance(out, tuple) and out else out
        expected = "a module that returns a tensor, or a tuple that begins with one"
        expect(isinstance(first, Tensor), "base", expected, out, error=TypeError)
        delta = self.side(self._take_input() if self._reads_elsewhere else _first(args, kwargs))
        fit = isinstance(delta, Tensor) and delta.shape == first.shape
        expect(fit, "side", f"a tensor of the base's shape {tuple(first.shape)} from it", delta)
        joined = torch.add(first, delta, alpha=self.scale)
        if not isinstance(out, tuple):
            return joined
        every = (joined, *out[1:])
        return type(out)(*every) if hasattr(out, "_fields") else every  # a named tuple stays one

    def _keep_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._read = _first(args, kwargs)

    def _take_input(self) -> Tensor:
        read, self._read = self._read, None
        once = "a module that runs exactly once before each run of the base"
        expect(read is not None, "input_of", once, None, error=RuntimeError)
        assert read is not None
        return read

    def extra_repr(self) -> str:
        """Return the scale."""
        return f"scale={self.scale}"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_read": None}


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument, by whatever name it was handed over."""
    return args[0] if args else next(iter(kwargs.values()))


def _called(module: nn.Module, args: tuple[Any, ...]) -> None:
    """Do nothing, but be there."""
