"""Sums of products of probabilities by their logarithms."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.ops.einsum.torch_log import einsum as pyros_einsum

from amfvi.interop.log_einsum import einsum, tensordot, transpose

GENERATOR = torch.Generator().manual_seed(0)
SIZES = {"a": 2, "b": 3, "c": 4}


@pytest.mark.parametrize(
    "equation", ["ab,bc->ac", "ab,b->a", "abc,c,b->ba", "ab->b", "a,b->ba", "ab->ab"]
)
def test_it_is_the_einsum_of_exponentials(equation):
    shapes = [[SIZES[dim] for dim in dims] for dims in equation.split("->")[0].split(",")]
    operands = [50 * torch.randn(shape, generator=GENERATOR).double() for shape in shapes]
    expected = torch.einsum(equation, [operand.exp() for operand in operands]).log()
    assert torch.allclose(einsum(equation, *operands), expected)
    assert torch.allclose(einsum(equation, *operands), pyros_einsum(equation, *operands))
    shifted = einsum(equation, *(operand - 2000 for operand in operands))
    assert torch.allclose(shifted, expected - 2000 * len(operands))
    stacked = [torch.stack([operand, operand - 1]) for operand in operands]
    mapped = torch.func.vmap(lambda *each: einsum(equation, *each))(*stacked)
    assert torch.allclose(mapped, torch.stack([expected, expected - len(operands)]))


def test_impossible_values_have_no_gradient_and_no_nan():
    x = torch.tensor([[0.0, -math.inf], [-math.inf, -math.inf]], dtype=torch.float64)
    x.requires_grad_()
    out = einsum("ab->a", x)
    assert out.tolist() == [0.0, -math.inf]
    (gradient,) = torch.autograd.grad(out[0], x)
    assert gradient.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_other_functions_of_the_backend():
    x, y = torch.randn(2, 3, 4, generator=GENERATOR), torch.randn(4, 3, 5, generator=GENERATOR)
    expected = torch.tensordot(x.exp(), y.exp(), dims=([1, 2], [1, 0])).log()
    assert torch.allclose(tensordot(x, y, ((1, 2), (1, 0))), expected)
    assert torch.equal(transpose(x, (2, 0, 1)), x.permute(2, 0, 1))
