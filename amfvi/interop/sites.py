"""Latent variables of a model in a probabilistic language, as parameters of a log density."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from amfvi.constraints.from_torch import constraints_of_entries
from amfvi.density.log_density import LogDensity
from amfvi.errors import UsageError
from amfvi.variables import Variable, Variables

__all__ = ["Site", "density_of_sites", "require_fixed_supports"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """A continuous latent variable.

    Attributes:
        name: of the variable.
        support: its constraint, one of torch.
        shape: of its values.
        plates: names of plates by the dimension of ``shape`` that they are.

    Examples:
        >>> from torch.distributions import constraints
        >>> site = Site(name="L", support=constraints.real, shape=(3, 2), plates={0: "school"})
        >>> site.variable
        Variable(name='L', shape=(3, 2), dims=('school', 'L_dim_1'))
    """

    name: str
    support: Any
    shape: tuple[int, ...]
    plates: Mapping[int, str] = field(default_factory=dict)

    @property
    def variable(self) -> Variable:
        """The array of its entries; dimensions that are no plates are named as by ArviZ."""
        if not self.plates:
            return Variable(self.name, self.shape)
        dims = (self.plates.get(i, f"{self.name}_dim_{i}") for i in range(len(self.shape)))
        return Variable(self.name, self.shape, tuple(dims))

    def constraints(self) -> dict[tuple[int, ...], Any]:
        """The constraints on its entries, by their places when it is flattened.

        Raises:
            UsageError: one that is not supported; the message names the site.
        """
        try:
            return constraints_of_entries(self.support, torch.Size(self.shape))
        except UsageError as error:
            raise UsageError(f"site {self.name!r}: {error}") from None


def density_of_sites(function: Callable[[Any], Any], sites: Sequence[Site]) -> LogDensity:
    """Make a log density of the entries of latent variables, one variable after the other.

    Args:
        function: see :class:`amfvi.LogDensity`.

    Raises:
        UsageError: a constraint that is not supported.

    Examples:
        >>> from torch.distributions import constraints
        >>> site = Site(name="tau", support=constraints.positive, shape=(2,))
        >>> density_of_sites(lambda x: -x.sum(dim=1), [site]).constraints.lower
        (0.0, 0.0)
    """
    held: dict[tuple[str, ...], Any] = {}
    for site in sites:
        labels = site.variable.labels
        held |= {
            tuple(labels[i] for i in entries): each for entries, each in site.constraints().items()
        }
    variables = Variables(tuple(site.variable for site in sites))
    return LogDensity(function, len(variables.names), variables=variables, constraints=held)


def require_fixed_supports(sites: Sequence[Site], again: Sequence[Site]) -> None:
    """Reject a model of which a site is held by the values of other sites.

    Args:
        sites, again: the same model's, run with other values.

    Raises:
        UsageError: there are other sites, shapes or constraints; the message names one.

    Examples:
        >>> from torch.distributions import constraints
        >>> low, high = (Site(name="u", support=constraints.interval(0.0, b), shape=())
        ...              for b in (1.0, 2.0))
        >>> require_fixed_supports([low], [high])
        Traceback (most recent call last):
        amfvi.errors.UsageError: the bounds of site 'u' depend on other sites; ...
    """
    shapes = [[(site.name, site.shape) for site in each] for each in (sites, again)]
    if shapes[0] != shapes[1]:
        changed = sorted({name for name, _ in set(shapes[0]) ^ set(shapes[1])})
        raise UsageError(
            "the latent sites depend on random values "
            f"({', '.join(changed) or 'their order changes'}); a log density has fixed parameters"
        )
    for site, other in zip(sites, again, strict=True):
        if site.constraints() != other.constraints():
            raise UsageError(
                f"the bounds of site {site.name!r} depend on other sites; sample what is free, "
                "such as its share of the interval, and compute the rest"
            )
