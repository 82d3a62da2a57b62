"""Single-side labels: everything genuine is one class, the attacks of each domain are a class of their own.

MMDG (arXiv 2402.19298), the set D of Eq. 6 and 7, with the asymmetric labels of SSDG (Jia et al., CVPR 2020):

    label = 0 if live else 1 + domain
"""

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_labels
from balancekit._typing import Bool, Int


def single_side_labels(live: Bool[Tensor, "b"], domain: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """Label genuine samples 0 and attacks 1 + their domain.

    Genuine samples look alike wherever they were recorded; attacks do not. With n domains there are n + 1 classes,
    and ``PrototypeBank(n + 1, …)`` holds them.

    Args:
        live: True for a genuine sample.
        domain: the data set or site that a sample comes from, counted from 0.

    Returns:
        int64 labels from 0 to the number of domains.

    Example:
        >>> single_side_labels(torch.tensor([True, False, True, False]), torch.tensor([0, 0, 1, 1]))
        tensor([0, 1, 0, 2])
    """
    expected = "a bool tensor of shape (b,)"
    expect(isinstance(live, Tensor) and live.dtype == torch.bool, "live", expected, live, error=TypeError)
    expect(live.ndim == 1, "live", expected, live)
    expect_labels("domain", domain, live.shape[0], torch.iinfo(torch.int32).max)
    expect_device("domain", domain, live)
    return torch.where(live, 0, 1 + domain.long())
