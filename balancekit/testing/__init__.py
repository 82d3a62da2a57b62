"""The laws of a rule, to run on your own.

A rule of gradient surgery is a small function, and easy to get almost right: to scale with the loss, to favour the
modality that comes first, to divide by a gradient that happens to be zero, to make a GPU wait. :func:`check_rule` tries
a rule on gradients drawn with zeros, duplicates, opposites and ties, and raises an AssertionError that names the law
and shows the case.

Say that each modality is to keep as much of its gradient as agrees with the total's, the cosine where it is positive:

    >>> import torch
    >>> class Agreement:
    ...     uses_total = True
    ...
    ...     def __call__(self, gram, step):
    ...         length = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    ...         lengths = length[:, :1] * length[:, 1:]
    ...         cosine = gram[:, 0, 1:] / torch.where(lengths > 0, lengths, 1)
    ...         weights = cosine.clamp(min=0) * step.present
    ...         return torch.cat([torch.ones_like(length[:, :1]), weights], dim=-1)
    >>> check_rule(Agreement())

It is a :class:`~balancekit.surgery.Rule` as it stands: ``Rebalancer(branches, Agreement())``. Had it kept the inner
product instead, it would have followed the scale of the losses:

    >>> class Product(Agreement):
    ...     def __call__(self, gram, step):
    ...         weights = gram[:, 0, 1:].clamp(min=0) * step.present
    ...         return torch.cat([torch.ones_like(weights[:, :1]), weights], dim=-1)
    >>> check_rule(Product())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: law: losses times a power of two leave the weights bit for bit
    ...

A rule may couple the granules of one branch, as MMPareto does; it may not
couple branches.
"""

from balancekit.testing._check import check_rule

__all__ = ["check_rule"]
