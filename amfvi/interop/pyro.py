"""Pyro models as log densities, and mixtures as Pyro distributions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from amfvi.constraints.from_torch import constraints_of_entries
from amfvi.density.log_density import LogDensity
from amfvi.errors import UsageError
from amfvi.mixture import Mixture

__all__ = ["from_pyro", "to_pyro"]

NEEDED = "this needs Pyro: pip install 'amfvi[pyro]'"


class _Site(NamedTuple):
    """A latent variable of a model."""

    name: str
    support: Any
    shape: torch.Size


def from_pyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> LogDensity:
    """Make a log density of the log joint density of a Pyro model given its observations.

    Its parameters are the model's continuous latent sites, in their own space, flattened:
    ``mu`` for a number, ``theta[1]``, ``theta[2]``, … for a vector. Constraints are those
    of the sites' distributions.

    Args:
        model: with the observed sites given by ``obs=`` or ``pyro.condition``.
        args, kwargs: of the model.

    Raises:
        UsageError: Pyro is not installed, no latent site, one that is discrete or has a
            constraint that is not supported, or a plate that subsamples; the message
            names it.

    Examples:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model():
        ...     tau = pyro.sample("tau", dist.HalfNormal(2.0))
        ...     pyro.sample("y", dist.Normal(0.0, tau), obs=torch.tensor(1.5))
        >>> density = from_pyro(model)
        >>> density.names, density.constraints.lower
        (('tau',), (0.0,))
    """
    try:
        import pyro
        from pyro import poutine
    except ImportError as error:
        raise UsageError(NEEDED) from error
    sites = _latent_sites(model, args, kwargs)
    names: list[str] = []
    held: dict[tuple[str, ...], Any] = {}
    for site in sites:
        labels = _label_entries(site)
        try:
            of_entries = constraints_of_entries(site.support, site.shape)
        except UsageError as error:
            raise UsageError(f"site {site.name!r}: {error}") from None
        held |= {tuple(labels[i] for i in entries): each for entries, each in of_entries.items()}
        names += labels
    sizes = [site.shape.numel() for site in sites]

    def log_joint(x: Tensor) -> Tensor:
        values = {
            site.name: part.reshape(site.shape)
            for site, part in zip(sites, x.split(sizes), strict=True)
        }
        # Pyro's checks of arguments look at numbers, which vmap does not have.
        with pyro.validation_enabled(False):
            conditioned = poutine.condition(model, data=values)
            trace: Any = poutine.trace(conditioned).get_trace(*args, **kwargs)
            return trace.log_prob_sum()

    return LogDensity(log_joint, len(names), names=names, constraints=held)


def to_pyro(mixture: Mixture) -> Any:
    """Make a Pyro distribution of a mixture, for ``pyro.sample`` in a model or a guide.

    Gradients pass through its ``log_prob``, so it can be a prior for HMC and NUTS. Draws
    carry none: as a guide it serves importance sampling, not training. Draws follow Pyro's
    seed, which is torch's global random state.

    Raises:
        UsageError: Pyro is not installed.

    Examples:
        >>> import pyro
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> prior = to_pyro(Mixture({"gmm": GMM().fit(draws)}, [1.0]))
        >>> pyro.sample("theta", prior).shape
        torch.Size([2])
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
            return mixture.sample(sample_shape)

        def log_prob(self, value: Tensor) -> Tensor:
            return mixture.log_prob(value)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            if torch.Size(batch_shape) != torch.Size():
                raise UsageError("a mixture has no batch shape; draw it once, outside a plate")
            return self

    return PyroMixture()


def _latent_sites(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[_Site]:
    """The continuous latent sites of a model, in order.

    Raises:
        UsageError: none, a discrete one, or a plate that subsamples.
    """
    import pyro
    import pyro.distributions as dist
    from pyro import poutine
    from pyro.poutine.messenger import Messenger

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
    sites = []
    for name, node in nodes.items():
        if node["type"] != "sample":
            continue
        kind = type(node["fn"]).__name__
        if kind == "_Subsample":
            _require_all_data(name, node["fn"])
        elif not node["is_observed"] and kind not in ("Unit", "Delta"):
            sites.append(_Site(name, node["fn"].support, node["value"].shape))
    if not sites:
        raise UsageError("the Pyro model has no latent sites")
    for site in sites:
        if getattr(site.support, "is_discrete", False):
            raise UsageError(f"site {site.name!r} is discrete; sum it out of the model first")
    return sites


def _require_all_data(plate: str, subsample: Any) -> None:
    size, taken = subsample.size, subsample.subsample_size
    if taken is not None and taken < size:
        raise UsageError(
            f"plate {plate!r} subsamples {taken} of {size}, so the log joint is random; "
            "leave out subsample_size"
        )


def _label_entries(site: _Site) -> list[str]:
    """Names for the entries of a site, in the order in which it is flattened."""
    if site.shape == torch.Size():
        return [site.name]
    places = itertools.product(*(range(1, size + 1) for size in site.shape))
    return [f"{site.name}[{','.join(map(str, place))}]" for place in places]
