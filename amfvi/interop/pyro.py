"""Pyro models as log densities, and mixtures as Pyro distributions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from amfvi.constraints.scalars import bounds_of
from amfvi.constraints.vectors import kind_of
from amfvi.density.log_density import LogDensity
from amfvi.errors import UsageError
from amfvi.mixture import Mixture

__all__ = ["from_pyro", "to_pyro"]

NEEDED = "this needs Pyro: pip install 'amfvi[pyro]'"


def from_pyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> LogDensity:
    """The log joint density of a Pyro model given its observations.

    Its parameters are the model's continuous latent sites, in their own space, flattened:
    ``mu`` for a number, ``theta[1]``, ``theta[2]``, … for a vector. Constraints are those
    of the sites' distributions.

    Args:
        model: with the observed sites given by ``obs=`` or ``pyro.condition``.
        args, kwargs: of the model.

    Raises:
        UsageError: no Pyro, no latent site, or one that is discrete or has a constraint
            that is not supported; the message names it.
    """
    try:
        import pyro
        import pyro.distributions as dist
        from pyro import poutine
        from pyro.poutine.messenger import Messenger
    except ImportError as error:
        raise UsageError(NEEDED) from error

    class Feasible(Messenger):
        """Values for sites that cannot be drawn from, such as improper priors."""

        def _pyro_sample(self, msg: Any) -> None:
            if isinstance(msg["fn"], dist.ImproperUniform) and not msg["is_observed"]:
                shape: Any = msg["fn"].shape()
                origin = torch.zeros(shape, dtype=torch.float64)
                msg["value"] = transform_to(msg["fn"].support)(origin)

    with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False), Feasible():
        torch.manual_seed(0)
        nodes: Any = poutine.trace(model).get_trace(*args, **kwargs).nodes
    sites = {
        name: (site["fn"].support, site["value"].shape)
        for name, site in nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and _is_random(site)
    }
    if not sites:
        raise UsageError("the Pyro model has no latent sites")
    names: list[str] = []
    given: dict[tuple[str, ...], Any] = {}
    for site, (support, shape) in sites.items():
        if getattr(support, "is_discrete", False):
            raise UsageError(f"site {site!r} is discrete; sum it out of the model first")
        labels = _labels(site, shape)
        given |= _constraints(site, support, shape, labels)
        names += labels
    sizes = [shape.numel() for _, shape in sites.values()]

    def log_joint(x: Tensor) -> Tensor:
        parts = x.split(sizes)
        values = {
            site: part.reshape(shape)
            for (site, (_, shape)), part in zip(sites.items(), parts, strict=True)
        }
        # Its checks of arguments look at numbers, which vectorised ones do not have.
        with pyro.validation_enabled(False):
            conditioned = poutine.condition(model, data=values)
            found: Any = poutine.trace(conditioned).get_trace(*args, **kwargs)
            return found.log_prob_sum()

    return LogDensity(log_joint, len(names), names=names, constraints=given)


def to_pyro(mixture: Mixture) -> Any:
    """The mixture as a Pyro distribution, for ``pyro.sample`` in a model or a guide.

    It has no gradients, like the mixture: for importance sampling, not for HMC.

    Raises:
        UsageError: no Pyro.
    """
    try:
        from pyro.distributions import TorchDistribution
    except ImportError as error:
        raise UsageError(NEEDED) from error

    class PyroMixture(TorchDistribution):
        arg_constraints: dict[str, Any] = {}  # noqa: RUF012
        has_rsample = False

        def __init__(self) -> None:
            super().__init__(torch.Size(), mixture.event_shape, validate_args=False)

        @property
        def support(self) -> constraints.Constraint:
            return mixture.support

        def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
            # Pyro is seeded by torch's global state, so that is what drives the draws here.
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
            return mixture.sample(sample_shape, generator)

        def log_prob(self, value: Tensor) -> Tensor:
            return mixture.log_prob(value)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            if torch.Size(batch_shape) != torch.Size():
                raise UsageError("a mixture has no batch shape; draw it once, outside a plate")
            return self

    return PyroMixture()


def _is_random(site: Any) -> bool:
    """Whether a site is a parameter, not a plate or a factor."""
    return type(site["fn"]).__name__ not in ("_Subsample", "Unit", "Delta")


def _labels(site: str, shape: torch.Size) -> list[str]:
    if shape == torch.Size():
        return [site]
    places = itertools.product(*(range(1, size + 1) for size in shape))
    return [f"{site}[{','.join(map(str, place))}]" for place in places]


def _constraints(
    site: str, support: Any, shape: torch.Size, labels: list[str]
) -> dict[tuple[str, ...], Any]:
    """Which constraint holds which parameters of a site."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if kind_of(support) is not None:
        rows = torch.arange(len(labels)).reshape(*shape[: len(shape) - support.event_dim], -1)
        return {
            tuple(labels[int(i)] for i in row): support for row in rows.reshape(-1, rows.shape[-1])
        }
    if support is constraints.real_vector:
        return {}
    try:
        ends = [getattr(support, end, None) for end in ("lower_bound", "upper_bound")]
        if not any(isinstance(end, Tensor) and end.ndim for end in ends):
            bounds = bounds_of(support)
            return {(label,): bounds for label in labels}
    except UsageError as error:
        raise UsageError(f"site {site!r}: {error}") from None
    # Bounds that differ from one entry to the next.
    low, high = (
        torch.as_tensor(fallback if end is None else end).expand(shape).reshape(-1).tolist()
        for end, fallback in zip(ends, (-torch.inf, torch.inf), strict=True)
    )
    return {(label,): pair for label, *pair in zip(labels, low, high, strict=True)}
