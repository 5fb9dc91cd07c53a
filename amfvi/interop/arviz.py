"""ArviZ data in, and mixtures out as ArviZ data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from amfvi.constraints.constraints import ConstraintsLike
from amfvi.draws.draws import Draws
from amfvi.draws.netcdf_files import table_from_posterior
from amfvi.errors import InputError, UsageError
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.statistics import resample
from amfvi.variables import Variables

__all__ = ["FittedToDensity", "WeightedSample", "from_arviz", "to_arviz"]

OVERSAMPLING = 4
"""Draws of the mixture for each draw that resampling by importance weights keeps."""

CHAINS = 4
"""Chains that independent draws are laid out as, so that ArviZ can compare them."""


class WeightedSample(Protocol):
    """Draws with importance weights, as :meth:`amfvi.Posterior.weighted_draws` returns them.

    Examples:
        >>> sorted(name for name in dir(WeightedSample) if not name.startswith("_"))
        ['log_weights', 'smoothed_log_weights', 'weights', 'x']
    """

    @property
    def x(self) -> Tensor:
        """Draws in the user's parameters, (m, d)."""

    @property
    def log_weights(self) -> Tensor:
        """Log p̃ − log q in nats, (m,)."""

    @property
    def smoothed_log_weights(self) -> Tensor:
        """The same after Pareto smoothing, of weights with mean one, (m,)."""

    @property
    def weights(self) -> Tensor:
        """Smoothed weights that sum to one, (m,)."""


@runtime_checkable
class FittedToDensity(Protocol):
    """A mixture that may know the log density it was fitted to, as posteriors do.

    Examples:
        >>> isinstance("a string", FittedToDensity)
        False
    """

    @property
    def log_density(self) -> Any:
        """The log density; None if it is not known."""

    @property
    def diagnostics(self) -> Any:
        """The verdict and its numbers; None for a fit to draws alone."""

    @property
    def variables(self) -> Variables:
        """The arrays that the parameters are entries of."""

    def weighted_draws(self, n: int, *, seed: int) -> WeightedSample:
        """Draw ``n`` times, with importance weights towards the log density."""


def from_arviz(
    data: Any,
    *,
    names: Sequence[str] | None = None,
    constraints: ConstraintsLike = None,
    nan_policy: str = "raise",
) -> Draws:
    """Take the draws of a posterior group, chains kept apart.

    A fit to them gives the same variables back by :func:`to_arviz`, with their dimensions and
    coordinates.

    Args:
        data: an ``InferenceData``, a ``DataTree``, or anything with a group ``posterior``
            of variables over (chain, draw, …).
        names: variables to take; all if not given. Entries of a vector are called
            ``theta[1]``, ``theta[2]``, …
        constraints, nan_policy: see :meth:`Draws.from_array`. ArviZ knows no constraints: a
            standard deviation has to be called positive here.

    Raises:
        InputError: no posterior group, no such variable, or draws that are not valid.

    Examples:
        >>> from_arviz({})
        Traceback (most recent call last):
        amfvi.errors.InputError: found no group 'posterior' in dict
    """
    group = getattr(data, "posterior", None)
    if group is None:
        raise InputError(f"found no group 'posterior' in {type(data).__name__}")
    if hasattr(group, "to_dataset"):  # a node of a DataTree does not select several variables
        group = group.to_dataset()
    for name in names or ():
        if name not in group.data_vars:
            raise InputError(f"no variable {name!r} in the posterior group")
    table = table_from_posterior(group if names is None else group[list(names)])
    return Draws.from_array(
        table.values,
        variables=table.variables,
        constraints=constraints,
        chain_ids=table.chain,
        nan_policy=nan_policy,
        source="ArviZ data",
    )


def to_arviz(mixture: Mixture, n: int = 4000, *, seed: int = 0, transformed: bool = False) -> Any:
    """Draw from a mixture into an ArviZ ``InferenceData`` (``DataTree`` in ArviZ 1).

    The draws are independent, laid out as four chains. For a posterior that knows the log
    density it was fitted to, more draws are made and resampled by their smoothed importance
    weights: draws of the posterior, as ArviZ knows no weights. ``sample_stats`` holds ``lp``,
    the log density (of the mixture, if that is all there is), and ``log_weight``, the
    logarithm of the normalized weight by which each draw was resampled. Verdict and evidence
    are attributes of the group ``posterior``.

    Args:
        n: number of draws; rounded up to a multiple of four.
        seed: of the draws.
        transformed: whether to add what the model computes from its parameters, if the log
            density was made of a model that does.

    Raises:
        UsageError: ArviZ is not installed, or nothing is known of what the model computes.

    Examples:
        >>> import torch
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0], names=("mu", "tau"))
        >>> to_arviz(mixture, 100).posterior["mu"].shape
        (4, 25)
    """
    try:
        import arviz
    except ImportError as error:
        raise UsageError("this needs ArviZ: pip install 'amfvi[arviz]'") from error
    n = CHAINS * -(-n // CHAINS)
    x, lp, log_weight = _draw(mixture, n, seed)
    known = mixture if isinstance(mixture, FittedToDensity) else None
    variables = Variables.from_names(mixture.names) if known is None else known.variables
    arrays = variables.split(x)
    layouts = [variables]
    if transformed:
        density = None if known is None else known.log_density
        if density is None:
            raise UsageError("transformed=True needs a posterior that knows its log density")
        arrays |= {n: np.asarray(values) for n, values in density.transformed(x).items()}
        layouts += [getattr(density, "transformed_variables", Variables(()))]
    groups = {
        "posterior": {name: _as_chains(values) for name, values in arrays.items()},
        "sample_stats": {"lp": _as_chains(lp), "log_weight": _as_chains(log_weight)},
    }
    dims = {v.name: list(v.dims) for layout in layouts for v in layout.each if v.dims}
    coords = {dim: values for layout in layouts for dim, values in layout.coords.items()}
    attributes = _attributes(known)
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(
            groups, dims=dims, coords=coords, attrs={"posterior": attributes, "/": attributes}
        )
    data = arviz.from_dict(**groups, dims=dims, coords=coords)
    data.posterior.attrs.update(attributes)
    return data


def _draw(
    mixture: Mixture, n: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Draws (n, d), log densities (n,) and log weights (n,)."""
    generator = generator_for(seed, "arviz")
    if isinstance(mixture, FittedToDensity) and mixture.log_density is not None:
        weighted = mixture.weighted_draws(OVERSAMPLING * n, seed=seed)
        rows = resample(weighted.weights, n, generator)
        x = weighted.x[rows]
        lp = weighted.log_weights[rows] + mixture.log_prob(x)
        return x.numpy(), lp.numpy(), weighted.smoothed_log_weights[rows].numpy()
    x = mixture.sample((n,), generator)
    return x.numpy(), mixture.log_prob(x).numpy(), np.zeros(n)


def _as_chains(values: NDArray[Any]) -> NDArray[Any]:
    """Draws (n, …) as (chains, n / chains, …)."""
    return values.reshape(CHAINS, -1, *values.shape[1:])


def _attributes(known: FittedToDensity | None) -> Mapping[str, Any]:
    """What the group ``posterior`` says of itself."""
    attributes: dict[str, Any] = {
        "inference_library": "amfvi",
        "inference_library_version": version("amfvi"),
    }
    diagnostics = None if known is None else known.diagnostics
    if diagnostics is not None:
        attributes |= {
            "verdict": str(diagnostics.verdict),
            "log_z": float(diagnostics.log_z),
            "log_z_se": float(diagnostics.log_z_se),
        }
    return attributes
