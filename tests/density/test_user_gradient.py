"""Gradients that the user supplies, or that JAX computes, reach the sampler and are checked."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import AmfviWarning, InputError, UsageError

MEAN = np.array([1.0, -2.0, 0.5])
PRECISION = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]])
POINTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def exact(x):
    """Values (n,) and gradients (n, 3) of the Gaussian that all forms below give."""
    z = x.numpy() - MEAN
    return -0.5 * np.einsum("ni,ij,nj->n", z, PRECISION, z), -z @ PRECISION


def numpy_batch(x):
    z = np.asarray(x) - MEAN
    return -0.5 * np.einsum("ni,ij,nj->n", z, PRECISION, z), -z @ PRECISION


def numpy_point(x):
    z = np.asarray(x) - MEAN
    return float(-0.5 * z @ PRECISION @ z), -PRECISION @ z


def torch_batch(x):
    z = x - torch.from_numpy(MEAN)
    gradient = -z @ torch.from_numpy(PRECISION)
    return 0.5 * (z * gradient).sum(dim=1), gradient


def torch_point(x):
    z = x - torch.from_numpy(MEAN)
    gradient = -torch.from_numpy(PRECISION) @ z
    return 0.5 * z @ gradient, gradient


def jax_point(x):
    import jax.numpy as jnp

    z = jnp.asarray(x) - MEAN
    return -0.5 * z @ jnp.asarray(PRECISION) @ z


def jax_batch(x):
    import jax.numpy as jnp

    z = jnp.asarray(x) - MEAN
    return -0.5 * jnp.einsum("ni,ij,nj->n", z, jnp.asarray(PRECISION), z)


def jax_pair(x):
    import jax

    return jax.value_and_grad(jax_point)(x)


def jax_that_leaves_jax(x):
    """A function that no transformation of JAX can follow."""
    import jax.numpy as jnp

    z = np.asarray(x) - MEAN
    return jnp.asarray(-0.5 * np.einsum("...i,ij,...j->...", z, PRECISION, z))


FORMS = {
    "numpy, batch": (numpy_batch, True),
    "numpy, point": (numpy_point, True),
    "torch, batch": (torch_batch, True),
    "torch, point": (torch_point, True),
    "jax, pair of a point": (jax_pair, True),
    "jax, point": (jax_point, False),
    "jax, batch": (jax_batch, False),
    "apart, numpy": (lambda x: numpy_batch(x)[0], numpy_batch),
    "apart, values of a point": (lambda x: numpy_point(x)[0], numpy_batch),
}
"""Functions of every form, and what is given as ``value_and_grad=``."""


def density_of(form):
    if "jax" in form:
        pytest.importorskip("jax")
    function, value_and_grad = FORMS[form]
    return LogDensity(function, 3, value_and_grad=value_and_grad)


@pytest.mark.filterwarnings("ignore:the log density takes one point")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_values_and_gradients(form):
    density = density_of(form)
    assert density.vectorized.differentiable
    values, gradients = UnconstrainedDensity(density).log_prob_and_gradient(POINTS)
    right_values, right_gradients = exact(POINTS)
    np.testing.assert_allclose(values, right_values, rtol=1e-12)
    np.testing.assert_allclose(gradients, right_gradients, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(density.log_prob(POINTS), right_values, rtol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize("form", ["jax, point", "jax, batch", "numpy, batch"])
def test_batches_of_every_size(form, n):
    density = density_of(form)
    values, gradients = UnconstrainedDensity(density).log_prob_and_gradient(POINTS.repeat(5, 1)[:n])
    assert values.shape == (n,)
    assert gradients.shape == (n, 3)
    np.testing.assert_allclose(values, exact(POINTS.repeat(5, 1)[:n])[0], rtol=1e-12)


def test_jax_is_compiled_for_few_sizes():
    """Every size of a batch would be compiled anew, for a second each."""
    pytest.importorskip("jax")
    traced = []

    def counted(x):
        traced.append(x.shape)
        return jax_point(x)

    density = LogDensity(counted, 3)
    assert density.vectorized.calling_convention == "JAX, point by point, compiled"
    before = len(traced)
    for n in range(1, 101):
        density.log_prob(POINTS.repeat(5, 1)[:n])
    assert len(traced) - before <= 4  # 16, 32, 64, 128


IN_SINGLE_PRECISION = """
import warnings, jax.numpy as jnp, torch
from amfvi import LogDensity
density = LogDensity(lambda x: -0.5 * jnp.sum(x**2), 2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(float(density.log_prob(torch.ones(1, 2).double())[0]))
print(density.vectorized.resolution > 1e-8, *[w.message for w in caught])
"""


def test_jax_in_single_precision_is_warned_of():
    """Its default, and a setting of the process: a context would spoil what is compiled."""
    pytest.importorskip("jax")
    environment = {**os.environ, "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, "-c", IN_SINGLE_PRECISION],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    value, message = done.stdout.splitlines()
    assert float(value) == -1.0
    assert message.startswith("True the log density is computed by JAX in single precision; for")


def test_a_function_that_leaves_jax_is_called_as_it_is_and_loses_its_gradient():
    pytest.importorskip("jax")
    density = LogDensity(jax_that_leaves_jax, 3)
    with pytest.warns(AmfviWarning, match=r"cannot be compiled \(\w+: .*without the gradient"):
        np.testing.assert_allclose(density.log_prob(POINTS), exact(POINTS)[0], rtol=1e-6)
    assert density.vectorized.calling_convention == "numpy, in batches"
    assert not density.vectorized.differentiable


def test_a_condition_that_jax_cannot_trace_is_told():
    pytest.importorskip("jax")
    import jax.numpy as jnp

    def with_a_condition(x):
        return -0.5 * jnp.sum(jnp.asarray(x) ** 2) * (2.0 if x[0] > 1e9 else 1.0)

    density = LogDensity(with_a_condition, 3)
    with pytest.warns(AmfviWarning) as caught:
        values = density.log_prob(POINTS)
    np.testing.assert_allclose(values, -0.5 * POINTS.square().sum(dim=1), rtol=1e-6)
    assert any("TracerBoolConversionError" in str(each.message) for each in caught)


@pytest.mark.filterwarnings("ignore:the log density takes one point")
@pytest.mark.parametrize("form", [form for form in FORMS if FORMS[form][1]])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda gradient: -gradient,
        lambda gradient: 1.01 * gradient,
        lambda gradient: gradient + 0.1,
        lambda gradient: 0 * gradient,
    ],
    ids=["sign", "factor", "offset", "zero"],
)
def test_a_wrong_gradient_is_refused(form, spoil):
    density = density_of(form)
    function, given = FORMS[form]
    pair = function if given is True else given

    def wrong(x):
        value, gradient = pair(x)
        return value, spoil(gradient)

    names = ("mu", "tau", "rho")
    if given is True:
        density = LogDensity(wrong, 3, names=names, value_and_grad=True)
    else:
        density = LogDensity(function, 3, names=names, value_and_grad=wrong)
    with pytest.raises(InputError, match=r"value_and_grad: the derivative .* by (mu|tau|rho) is"):
        density.log_prob(POINTS)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_one_wrong_derivative_is_named(column):
    def wrong(x):
        value, gradient = numpy_batch(x)
        gradient[:, column] *= 2
        return value, gradient

    density = LogDensity(wrong, 3, names=("mu", "tau", "rho"), value_and_grad=True)
    with pytest.raises(InputError, match=f"by {('mu', 'tau', 'rho')[column]} is"):
        density.log_prob(POINTS)


@pytest.mark.parametrize(
    ("value", "gradient"),
    [
        (lambda x: -np.abs(x).sum(1), lambda x: -np.sign(x)),
        (lambda x: -1e8 * x[:, 0] ** 2 - x[:, 1] ** 2, lambda x: x * np.array([-2e8, -2.0])),
        (lambda x: -1e-12 * (x**2).sum(1), lambda x: -2e-12 * x),
        (lambda x: -0.5 * ((x / 1e-6) ** 2).sum(1), lambda x: -x / 1e-12),
        (lambda x: -1e10 - (x**2).sum(1), lambda x: -2 * x),
        (lambda x: np.where(x[:, 0] > 0, -x[:, 0], -np.inf), lambda x: np.stack(
            [np.where(x[:, 0] > 0, -1.0, 0.0), 0 * x[:, 1]], axis=1)),
        (lambda x: (-(x**2).sum(1)).astype(np.float32), lambda x: -2 * x),
    ],
    ids=["kink", "steep", "flat", "narrow", "offset", "cliff", "single precision"],
)  # fmt: skip
def test_right_gradients_of_awkward_densities_are_accepted(value, gradient):
    density = LogDensity(lambda x: (value(x), gradient(x)), 2, value_and_grad=True)
    x = POINTS[:, :2]
    assert torch.equal(
        UnconstrainedDensity(density).log_prob_and_gradient(x)[1],
        torch.from_numpy(gradient(x.numpy())),
    )


def test_a_gradient_passes_through_constraints():
    pytest.importorskip("jax")
    import jax.numpy as jnp

    def gamma(x):
        return 2 * jnp.log(x[0]) - x[0]

    density = UnconstrainedDensity(LogDensity(gamma, 1, constraints=[(0, None)]))
    y = POINTS[:, :1]
    values, gradients = density.log_prob_and_gradient(y)
    assert isinstance(density.transform, UnconstrainingTransform)
    torch.testing.assert_close(values, 3 * y[:, 0] - y[:, 0].exp())
    torch.testing.assert_close(gradients, 3 - y.exp())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: -(x**2).sum(1), "value_and_grad returned Tensor, expected a value and its"),
        (lambda x: (-(x**2).sum(1), x, x), "value_and_grad returned tuple, expected a value"),
        (lambda x: (-(x**2).sum(1), -2 * x[:, :1]), "expected shape"),
    ],
)
def test_what_is_no_pair_is_said(function, message):
    with pytest.raises(InputError, match=message):
        LogDensity(function, 3, value_and_grad=True).log_prob(POINTS)


def test_values_of_two_functions_must_agree():
    density = LogDensity(lambda x: numpy_batch(x)[0] + 1, 3, value_and_grad=numpy_batch)
    with pytest.raises(InputError, match=r"value_and_grad gives .* where the log density is"):
        density.log_prob(POINTS)


def test_value_and_grad_is_a_function_or_true():
    with pytest.raises(UsageError, match="value_and_grad must be True"):
        LogDensity(numpy_batch, 3, value_and_grad="yes")


def test_a_loop_over_points_is_warned_of():
    with pytest.warns(AmfviWarning, match="one point at a time"):
        density_of("numpy, point").log_prob(POINTS)


def test_nan_still_names_the_point():
    density = LogDensity(
        lambda x: (np.where(x[:, 0] > 2, math.nan, -(x**2).sum(1)), -2 * x), 2, value_and_grad=True
    )
    with pytest.raises(InputError, match="the log density is nan at x1 = 3"):
        density.log_prob(torch.tensor([[3.0, 0.0]]).double())
