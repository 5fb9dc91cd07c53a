"""Mixtures as NumPyro distributions, which call torch for values and gradients."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.errors import UsageError
from amfvi.interop.numpyro_constraints import numpyro_constraint
from amfvi.mixture import Mixture

__all__ = ["to_numpyro"]

NEEDED = "this needs NumPyro: pip install 'amfvi[numpyro]'"


def to_numpyro(mixture: Mixture) -> Any:
    """Make a NumPyro distribution of a mixture, for ``numpyro.sample`` in a model.

    Events are vectors of the d parameters, within the mixture's constraints. ``log_prob``
    calls torch back, many points at once, and hands its gradient to JAX: under ``jit``,
    ``vmap``, ``grad`` and in NUTS. There is no forward-mode derivative and no second one,
    and draws carry none. Draws follow the key. As a prior for further data it is as right as
    the fit is where those data lie: fit with more draws if they disagree with the first ones.

    Raises:
        UsageError: NumPyro is not installed, or ``mixture`` is something else: a conditional
            mixture is one only ``given`` a condition.

    Examples:
        >>> import jax
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> prior = to_numpyro(Mixture({"gmm": GMM().fit(draws)}, [1.0]))
        >>> prior.sample(jax.random.key(0), (3,)).shape, prior.event_shape
        ((3, 2), (2,))
    """
    try:
        import numpyro  # noqa: F401
    except ImportError as error:
        raise UsageError(NEEDED) from error
    if not isinstance(mixture, Mixture):
        hint = "; give its mixture at one condition, given(c)" if hasattr(mixture, "given") else ""
        raise UsageError(f"a mixture is expected, found {type(mixture).__name__}{hint}")
    return _distribution_class()(mixture)


@cache
def _distribution_class() -> Any:
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist
    from numpyro.distributions import constraints as theirs

    class NumpyroMixture(dist.Distribution):
        arg_constraints: dict[str, Any] = {}  # noqa: RUF012
        pytree_aux_fields = ("calls",)
        has_rsample = False

        def __init__(self, mixture: Mixture) -> None:
            self.calls = _Calls(mixture)
            super().__init__((), (mixture.dim,), validate_args=False)

        def _held(self) -> Any:
            return numpyro_constraint(self.calls.mixture.constraints)

        support = theirs.dependent_property(_held, is_discrete=False, event_dim=1)

        def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
            shape = (*sample_shape, self.calls.mixture.dim)
            out = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
            bits = jax.random.bits(key, (2,), "uint32")
            calls = self.calls

            def draw(seed: Any) -> NDArray[Any]:
                return calls.draw(seed, shape).astype(out.dtype)

            return jax.pure_callback(draw, out, bits, vmap_method="sequential")

        def log_prob(self, value: Any, intermediates: Any = None) -> Any:
            return self.calls.log_prob(jnp.asarray(value, dtype=jnp.result_type(float)))

    return NumpyroMixture


class _Calls:
    """What is computed by torch, for points that come and go as arrays.

    Attributes:
        mixture: that computes it.
        log_prob: from points (..., d) of JAX to log densities (...) of the same precision.
    """

    def __init__(self, mixture: Mixture) -> None:
        import jax

        self.mixture = mixture
        self.log_prob = jax.custom_vjp(self._value)
        self.log_prob.defvjp(self._value_and_gradient, _pull_back)

    def draw(self, seed: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Draws of this shape (..., d), from 64 random bits."""
        high, low = (int(bits) for bits in np.asarray(seed))
        generator = torch.Generator().manual_seed((high << 32 | low) >> 1)
        return self.mixture.sample(shape[:-1], generator).numpy()

    def _value(self, x: Any) -> Any:
        import jax

        def call(points: Any) -> NDArray[Any]:
            return self._compute(points, gradient=False)[0].astype(out.dtype)

        out = jax.ShapeDtypeStruct(x.shape[:-1], x.dtype)
        return jax.pure_callback(call, out, x, vmap_method="broadcast_all")

    def _value_and_gradient(self, x: Any) -> tuple[Any, Any]:
        import jax

        def call(points: Any) -> tuple[NDArray[Any], ...]:
            return tuple(part.astype(x.dtype) for part in self._compute(points, gradient=True))

        out = jax.ShapeDtypeStruct(x.shape[:-1], x.dtype), jax.ShapeDtypeStruct(x.shape, x.dtype)
        value, gradient = jax.pure_callback(call, out, x, vmap_method="broadcast_all")
        return value, gradient

    def _compute(self, points: Any, *, gradient: bool) -> tuple[NDArray[np.float64], ...]:
        """Log densities (...) of points (..., d), and gradients (..., d) if wanted.

        A sampler may ask at points that are not finite: NaN at NaN, −∞ at ±∞.
        """
        x = torch.from_numpy(np.array(points, dtype=np.float64)).reshape(-1, self.mixture.dim)
        finite = x.isfinite().all(dim=1)
        value = torch.where(x.isnan().any(dim=1), math.nan, -math.inf).double()
        slope = torch.zeros_like(x)
        with torch.set_grad_enabled(gradient):
            inside = x[finite].requires_grad_(gradient)
            log_q = self.mixture.log_prob(inside)
            value[finite] = log_q.detach()
            if gradient:
                slope[finite] = _gradient(log_q, inside)
        shape = np.shape(points)
        if not gradient:
            return (value.reshape(shape[:-1]).numpy(),)
        return value.reshape(shape[:-1]).numpy(), slope.reshape(shape).numpy()


def _gradient(log_q: Tensor, x: Tensor) -> Tensor:
    """Gradients (n, d), zero outside of the support."""
    (gradient,) = torch.autograd.grad(log_q.sum(), x)
    return gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _pull_back(gradient: Any, outer: Any) -> tuple[Any]:
    return (outer[..., None] * gradient,)
