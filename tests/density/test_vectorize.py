"""Random densities are refused, and only those."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import amfvi
from amfvi.density.log_density import LogDensity
from amfvi.density.vectorize import vectorize
from amfvi.errors import InputError

POINTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
RANDOM = np.random.default_rng(0)
DATA = torch.randn(50, generator=torch.Generator().manual_seed(1)).double()


def subsampling(x):
    """A likelihood of ten of fifty data, as of a model with minibatches."""
    rows = torch.randint(50, (10,))
    return -(x[:, :1] - DATA[rows]).square().sum(dim=1)


def dropout(x):
    kept = torch.rand(2) < 0.8
    return -(x.square() * kept).sum(dim=1)


RANDOM_DENSITIES = {
    "numpy, point by point": lambda x: (
        float(-np.asarray(x)[:2] @ np.asarray(x)[:2]) + 0.5 * RANDOM.normal()
    ),
    "numpy, in batches": lambda x: (
        -np.square(np.asarray(x)).sum(axis=1) + 0.5 * RANDOM.normal(size=len(x))
    ),
    "torch, in batches": lambda x: -x.square().sum(dim=1) + 0.5 * torch.randn(len(x)),
    "torch, one noise per batch": lambda x: -x.square().sum(dim=1) + 0.5 * torch.randn(()),
    "torch, point by point": lambda x: -(x[0] ** 2) - x[1] ** 2 + 0.5 * torch.randn(()),
    "subsampling": subsampling,
    "dropout": dropout,
    "small noise": lambda x: -x.square().sum(dim=1) * (1 + 1e-3 * torch.randn(len(x))),
    "small noise in numpy": lambda x: (
        float(-(x[0] ** 2) - x[1] ** 2) * (1 + 1e-3 * RANDOM.normal())
    ),
    "noise far below a large value": lambda x: -1e4 - x.square().sum(1) + 0.1 * torch.randn(len(x)),
    "single precision": lambda x: (-1e2 - x.square().sum(1) + 0.1 * torch.randn(len(x))).float(),
    "not everywhere": lambda x: -x.square().sum(1) + torch.where(x[:, 0] > 0, torch.randn(()), 0.0),
    "sometimes minus infinity": lambda x: torch.where(
        torch.rand(len(x)) < 0.5, -math.inf, -x.square().sum(1)
    ),
}


@pytest.mark.parametrize("name", RANDOM_DENSITIES)
@pytest.mark.filterwarnings("ignore:the log density takes one point")
def test_a_random_density_is_refused(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with pytest.raises(InputError, match=r"the log density is random: .* in two calls at one"):
            LogDensity(RANDOM_DENSITIES[name], 2).log_prob(POINTS)


def in_place(x):
    x -= 1
    return -(x**2).sum(-1)


REPRODUCIBLE_DENSITIES = {
    "single precision": lambda x: -1e5 - x.float().square().sum(1),
    "single precision, point by point": lambda x: -1e5 - x.float().square().sum(),
    "half precision inside": lambda x: -x.half().square().sum(1).double(),
    "numpy, single precision": lambda x: -np.float32(np.asarray(x)).__pow__(2).sum(axis=1),
    "in place": in_place,
    "in place, point by point": lambda x: in_place(x) + 0 * x[0].item(),
    "in place, numpy": lambda x: in_place(np.asarray(x)),
    "minus infinity": lambda x: torch.where(x[:, 0] > 0, -x[:, 0], -math.inf),
    "minus infinity everywhere tried": lambda x: torch.full((len(x),), -math.inf),
    "large values": lambda x: -1e12 * x.square().sum(1),
    "a seed of its own": lambda x: (
        -x.square().sum(1) + torch.randn(1, generator=torch.Generator().manual_seed(3)).double()
    ),
}


@pytest.mark.parametrize("name", REPRODUCIBLE_DENSITIES)
@pytest.mark.filterwarnings("ignore:the log density takes one point")
def test_no_other_density_is_taken_for_random(name):
    values = LogDensity(REPRODUCIBLE_DENSITIES[name], 2).log_prob(POINTS)
    assert values.shape == (40,)
    assert values.dtype == torch.float64


@pytest.mark.filterwarnings("ignore:the log density takes one point at a time")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: float(-0.5 * x.square().sum()),  # torch in, a number out
        lambda x: -0.5 * x.square().sum().item(),
        lambda x: -0.5 * x.square().sum(dim=1).numpy(),  # torch in, numpy out
        lambda x: -0.5 * torch.from_numpy(x).square().sum(dim=1),  # numpy in, torch out
    ],
    ids=["float", "item", "torch-to-numpy", "numpy-to-torch"],
)
def test_functions_that_mix_torch_and_numpy_are_called_as_they_were_probed(function):
    """Once, what was returned decided what was handed in: a function of tensors got arrays."""
    points = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    found = vectorize(function, points)
    more = torch.randn(5, 2, generator=torch.Generator().manual_seed(1)).double()
    assert torch.allclose(found.call(more), -0.5 * more.square().sum(dim=1))
    assert not found.differentiable


def test_what_a_function_raised_is_the_cause_of_the_error():
    def broken(x):
        raise ValueError("beta=0.5 is not allowed")

    with pytest.raises(InputError, match="cannot be called") as error:
        vectorize(broken, torch.zeros(3, 2).double())
    assert isinstance(error.value.__cause__, ValueError)


def squeezed_with_gradient(x):
    return np.squeeze(-np.square(np.asarray(x)).sum(axis=1, keepdims=True)), np.squeeze(
        -2 * np.asarray(x)
    )


@pytest.mark.parametrize(
    "density",
    [
        LogDensity(multivariate_normal([0.0, 0.0], 0.5).logpdf, 2),
        LogDensity(lambda x: -x.square().sum(dim=1, keepdim=True).squeeze(), 2),
        LogDensity(lambda x: np.squeeze(-np.square(np.asarray(x)).sum(axis=1, keepdims=True)), 2),
        LogDensity(squeezed_with_gradient, 2, value_and_grad=True),
    ],
    ids=["scipy", "torch", "numpy", "with its gradient"],
)
def test_a_function_may_drop_the_dimension_of_a_batch_of_one(density):
    """``multivariate_normal(…).logpdf`` does; every fit to it ended in an error of torch's."""
    together = density.log_prob(POINTS)
    alone = torch.cat([density.log_prob(point) for point in POINTS[:3].split(1)])
    assert torch.allclose(alone, together[:3], rtol=1e-12)
    assert "in batches" in density.vectorized.calling_convention


def test_a_distribution_of_scipy_is_fitted():
    normal = multivariate_normal([1.0, -1.0], [[1.0, 0.5], [0.5, 2.0]])
    diagnostics = amfvi.fit(LogDensity(normal.logpdf, 2), experts="gmm", n_draws=500).diagnostics
    assert abs(diagnostics.log_z) < 0.02
