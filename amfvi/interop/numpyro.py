"""NumPyro models as log densities, with JAX's gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.density.log_density import LogDensity
from amfvi.errors import InputError, UsageError
from amfvi.interop.numpyro_constraints import torch_constraint
from amfvi.interop.sites import Site, density_of_sites, require_fixed_supports

__all__ = ["deterministic", "from_numpyro"]

NEEDED = "this needs NumPyro: pip install 'amfvi[numpyro]'"


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> LogDensity:
    """Make a log density of the log joint density of a NumPyro model given its observations.

    Its parameters are the model's latent sites, in their own space, flattened: ``mu`` for a
    number, ``theta[1]``, ``theta[2]``, … for a vector, whose dimensions are named by their
    plates. Constraints are those of the sites' distributions. JAX compiles it and its
    gradient, in the precision that JAX is set to: set ``jax_enable_x64``.

    Args:
        model: with the observed sites given by ``obs=`` or ``numpyro.handlers.condition``.
        args, kwargs: of the model.

    Raises:
        UsageError: NumPyro is not installed, no latent site, one that is discrete, has a
            constraint that is not supported or bounds that depend on other sites, or a plate
            that subsamples; the message names it.

    Examples:
        >>> import numpyro
        >>> import numpyro.distributions as dist
        >>> def model():
        ...     tau = numpyro.sample("tau", dist.HalfNormal(2.0))
        ...     numpyro.sample("y", dist.Normal(0.0, tau), obs=1.5)
        >>> density = from_numpyro(model)
        >>> density.names, density.constraints.lower
        (('tau',), (0.0,))
    """
    try:
        import jax
        import jax.numpy as jnp
        from numpyro.infer.util import log_density
    except ImportError as error:
        raise UsageError(NEEDED) from error
    sites = _latent_sites(model, args, kwargs)
    seeded = _seeded(model, 0)

    def of_point(x: Any) -> Any:
        return log_density(seeded, args, kwargs, _split(x, sites))[0]

    # Compiled from the first call on: op by op JAX would compile every operation by itself.
    at_point, at_points = jax.jit(of_point), jax.jit(jax.vmap(of_point))

    def log_joint(x: Any) -> Any:
        x = jnp.asarray(x)
        return at_point(x) if x.ndim == 1 else at_points(x)

    return density_of_sites(log_joint, sites)


def deterministic(
    model: Callable[..., Any], draws: Any, *args: Any, **kwargs: Any
) -> dict[str, NDArray[Any]]:
    """Compute the deterministic sites of a NumPyro model for draws of its latent ones.

    Args:
        draws: (n, d), the parameters that :func:`from_numpyro` finds, in its order.
        args, kwargs: of the model.

    Returns:
        Arrays (n, ...) by the names of the ``numpyro.deterministic`` sites.

    Raises:
        UsageError: the model is not one for :func:`from_numpyro`.
        InputError: draws of another shape.

    Examples:
        >>> import numpyro
        >>> import numpyro.distributions as dist
        >>> def model():
        ...     tau = numpyro.sample("tau", dist.HalfNormal(2.0))
        ...     numpyro.deterministic("variance", tau**2)
        >>> deterministic(model, np.array([[2.0], [3.0]]))["variance"].tolist()
        [4.0, 9.0]
    """
    try:
        import jax
        from numpyro import handlers
    except ImportError as error:
        raise UsageError(NEEDED) from error
    sites = _latent_sites(model, args, kwargs)
    x = np.asarray(draws)
    d = sum(site.variable.size for site in sites)
    if x.ndim != 2 or x.shape[1] != d:
        names = ", ".join(site.name for site in sites)
        raise InputError(f"expected draws of shape (n, {d}) of {names}, found {x.shape}")

    def of_point(point: Any) -> dict[str, Any]:
        substituted = handlers.substitute(_seeded(model, 0), data=_split(point, sites))
        trace = handlers.trace(substituted).get_trace(*args, **kwargs)
        return {
            name: node["value"] for name, node in trace.items() if node["type"] == "deterministic"
        }

    return {name: np.array(value) for name, value in jax.vmap(of_point)(x).items()}


def _split(x: Any, sites: list[Site]) -> dict[str, Any]:
    """Values of the sites by name from one point (d,)."""
    values, start = {}, 0
    for site in sites:
        size = site.variable.size
        values[site.name] = x[start : start + size].reshape(site.shape)
        start += size
    return values


def _seeded(model: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """The model with random numbers, for what it draws beside its latent sites."""
    from numpyro import handlers

    return handlers.seed(model, rng_seed=seed)


def _latent_sites(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Site]:
    """The latent sites of a model, in order.

    Raises:
        UsageError: as :func:`from_numpyro`.
    """
    sites, again = (_sites_of_run(model, args, kwargs, seed) for seed in (0, 1))
    if not sites:
        raise UsageError("the NumPyro model has no latent sites")
    require_fixed_supports(sites, again)
    return sites


def _sites_of_run(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], seed: int
) -> list[Site]:
    """The latent sites that one run of the model meets."""
    import numpyro.distributions as dist
    from numpyro import handlers
    from numpyro.infer.initialization import init_to_uniform

    def feasible(site: Any) -> Any:
        """A value for a site that cannot be drawn from, such as an improper prior."""
        improper = site["type"] == "sample" and isinstance(site["fn"], dist.ImproperUniform)
        return init_to_uniform(site) if improper and not site["is_observed"] else None

    run = handlers.substitute(_seeded(model, seed), substitute_fn=feasible)
    trace = handlers.trace(run).get_trace(*args, **kwargs)
    sites = []
    for name, node in trace.items():
        if node["type"] == "plate":
            _require_all_data(name, *node["args"])
        elif node["type"] == "sample" and not node["is_observed"]:
            if isinstance(node["fn"], dist.Delta):
                continue
            if getattr(node["fn"].support, "is_discrete", False):
                raise UsageError(
                    f"site {name!r} is discrete; marginalize it, such as by a "
                    "numpyro.distributions.MixtureSameFamily of what depends on it"
                )
            sites.append(_site(name, node))
    return sites


def _site(name: str, node: Any) -> Site:
    try:
        support = torch_constraint(node["fn"].support)
    except UsageError as error:
        raise UsageError(f"site {name!r}: {error}") from None
    shape = tuple(int(size) for size in np.shape(node["value"]))
    batch = len(shape) - len(node["fn"].event_shape)
    plates = {batch + frame.dim: frame.name for frame in node["cond_indep_stack"]}
    return Site(name=name, support=support, shape=shape, plates=plates)


def _require_all_data(plate: str, size: int, taken: int | None) -> None:
    if taken is not None and taken < size:
        raise UsageError(
            f"plate {plate!r} subsamples {taken} of {size}, so the log joint is random; "
            "leave out subsample_size"
        )
