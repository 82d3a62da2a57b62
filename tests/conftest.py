"""What the tests share."""

import warnings

import torch

with warnings.catch_warnings():  # torch's compiler stack warns of torch's own deprecations while it imports itself
    warnings.simplefilter("ignore")
    torch.compile(torch.sin)(torch.zeros(2))
