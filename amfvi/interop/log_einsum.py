"""Sums of products of probabilities by their logarithms: Pyro's einsum, for vmap too."""

from __future__ import annotations

import math
import string
from typing import Any

import torch
from torch import Tensor

__all__ = ["einsum", "tensordot", "transpose"]

# opt_einsum takes these three functions from a module; Pyro's own, ``pyro.ops.einsum.torch_log``,
# takes the logarithm by an autograd function that vmap refuses.


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Logarithm of the einsum of the exponentials of operands, without overflow.

    Args:
        equation: as of ``torch.einsum``; ``"ab,b->a"`` is a product of matrix and vector.

    Examples:
        >>> p = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
        >>> q = torch.tensor([1.0, 0.0])
        >>> einsum("ab,b->a", p.log(), q.log()).exp()
        tensor([0.5000, 0.2500])
    """
    rename = dict(zip(sorted(set(equation) - set(",->")), string.ascii_letters, strict=False))
    equation = "".join(rename.get(symbol, symbol) for symbol in equation)
    inputs, output = equation.split("->")
    if inputs == output:
        return operands[0].clone()
    total: Any = 0.0
    scaled = []
    for dims, operand in zip(inputs.split(","), operands, strict=True):
        shift = operand.detach()
        summed = tuple(i for i, dim in enumerate(dims) if dim not in output)
        if summed:
            shift = shift.amax(summed, keepdim=True)
        shift = shift.clamp(min=torch.finfo(shift.dtype).min)  # −∞ − (−∞) is no number
        scaled.append((operand - shift).exp())
        if summed:
            shift = shift.squeeze(summed)
        kept = [dim for dim in dims if dim in output]
        shift = shift.permute([kept.index(dim) for dim in output if dim in kept])
        total = total + shift[tuple(slice(None) if dim in kept else None for dim in output)]
    product = torch.einsum(equation, scaled)
    positive = product > 0
    log = torch.where(positive, product, 1.0).log()
    return total + torch.where(positive, log, -math.inf)


def transpose(a: Tensor, axes: Any) -> Tensor:
    """Put the dimensions of a tensor in another order.

    Examples:
        >>> transpose(torch.zeros(2, 3), (1, 0)).shape
        torch.Size([3, 2])
    """
    return a.permute(axes)


def tensordot(x: Tensor, y: Tensor, axes: Any = 2) -> Tensor:
    """Contract dimensions of two tensors of logarithms, as ``torch.tensordot`` of the others.

    Examples:
        >>> tensordot(torch.zeros(2, 3), torch.zeros(3), axes=1).exp()
        tensor([3., 3.])
    """
    from pyro.ops.einsum.util import Tensordot

    product: Tensor = Tensordot(einsum)(x, y, axes)
    return product
