"""Shapes in signatures: ``Float[Tensor, "b n d"]``.

jaxtyping is needed only by the tests, which check these shapes; where it is absent, and to every type checker,
``Float[Tensor, "b n d"]`` is plain ``Tensor``. The axis letters are those of the documentation: m modality, g granule,
r gradient row, b batch, n token, s sample, c class, d feature, h head.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Int
    from typing import Annotated as Shaped
else:
    try:
        from jaxtyping import Bool, Float, Int, Shaped
    except ImportError:

        class _Shaped:
            """Stands for a jaxtyping dtype: the array type alone remains."""

            def __class_getitem__(cls, item: tuple[type, str]) -> type:
                return item[0]

        Bool = Float = Int = Shaped = _Shaped

__all__ = ["Bool", "Float", "Int", "Shaped"]
