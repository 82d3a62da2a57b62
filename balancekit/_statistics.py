"""Statistics in buffers, which a cast of the model around them must not ruin."""

from collections.abc import Callable

from torch import Tensor, finfo, float32, nn


class Statistics(nn.Module):
    """A module whose floating-point buffers stay float32 or wider when the model around it is cast to less."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def widened(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            narrow = moved.is_floating_point() and finfo(moved.dtype).bits < 32
            return buffer.to(moved.device, float32) if narrow else moved

        return super()._apply(widened, recurse)
