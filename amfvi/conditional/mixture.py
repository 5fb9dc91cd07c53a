"""The conditional mixture: a density of the parameters for every condition."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from amfvi.conditional.familiarity import Familiarity
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.errors import InputError, unknown_name
from amfvi.experts import ConditionedExpert, Expert
from amfvi.experts.checks import as_points, draw_shape
from amfvi.experts.matrix import log_densities
from amfvi.mixture import Mixture
from amfvi.statistics import normalize_to_sum

__all__ = ["ConditionalMixture"]

CHUNK = 2**16
"""Rows that are evaluated at a time, so that memory stays bounded."""


class ConditionalMixture:
    """The density q(y | c) = Σₖ wₖ qₖ(y | c), with frozen experts and one set of weights.

    Args:
        experts: conditional experts by name, over unconstrained parameters.
        weights: on the simplex, (K,).
        transform: of the parameters to unconstrained space.
        names: of the d parameters.
        given_names: of the g numbers of a condition.
        familiarity: what is known of the conditions that it was fitted to.

    Examples:
        >>> import amfvi
        >>> generator = torch.Generator().manual_seed(0)
        >>> c = torch.randn(300, 1, generator=generator, dtype=torch.float64)
        >>> y = c + torch.randn(300, 1, generator=generator, dtype=torch.float64)
        >>> model = amfvi.fit(y, given=c, experts="gmm")
        >>> model.log_prob(y[:4], given=c[:4]).shape, model.sample(7, given=c[:4]).shape
        (torch.Size([4]), torch.Size([7, 4, 1]))
        >>> model.given(2.0).sample((5,)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        experts: Mapping[str, Expert],
        weights: Any,
        *,
        transform: UnconstrainingTransform,
        names: tuple[str, ...],
        given_names: tuple[str, ...],
        familiarity: Familiarity,
    ) -> None:
        shapes = {(expert.given, expert.dim) for expert in experts.values()}
        expected = (len(given_names), transform.constraints.unconstrained_dim)
        if shapes != {expected}:
            raise InputError(
                f"experts must be of {expected[1]} coordinates given {expected[0]}, found {shapes}"
            )
        self._experts = dict(experts)
        self._weights = torch.as_tensor(weights, dtype=torch.float64).detach().cpu()
        if self._weights.shape != (len(experts),) or not bool((self._weights >= 0).all()):
            raise InputError(f"weights must be {len(experts)} non-negative numbers")
        self._weights = normalize_to_sum(self._weights)
        self.transform = transform
        self.names, self.given_names = names, given_names
        self._familiarity = familiarity

    @property
    def experts(self) -> Mapping[str, Expert]:
        """The frozen conditional experts by name, in order."""
        return MappingProxyType(self._experts)

    @property
    def weights(self) -> Tensor:
        """Mixture weights, float64, (K,), in the order of ``experts``."""
        return self._weights.clone()

    @property
    def constraints(self) -> Constraints:
        """The constraints on the parameters."""
        return self.transform.constraints

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return len(self.names)

    @property
    def given_dim(self) -> int:
        """Number of coordinates g of a condition."""
        return len(self.given_names)

    @property
    def device(self) -> torch.device:
        """The device that the experts compute on."""
        return next(iter(self._experts.values())).device

    def given(self, condition: Any) -> Mixture:
        """The mixture at one condition (g,): a distribution over the parameters like any other.

        Args:
            condition: g numbers, or a mapping from ``given_names`` to them.

        Raises:
            InputError: other numbers than these.
        """
        c = self._as_conditions(condition)
        if len(c) != 1:
            raise InputError(
                f"one condition of {self.given_dim} numbers is expected, found {len(c)}"
            )
        experts = {name: ConditionedExpert(e, c[0]) for name, e in self._experts.items()}
        return Mixture(experts, self._weights, transform=self.transform, names=self.names)

    def log_prob(self, y: Any, given: Any) -> Tensor:
        """Log density in nats at parameters (n, d), each given its condition; shape (n,).

        −∞ outside the constraints. Where ``y`` requires gradients, they pass through.

        Args:
            given: conditions (n, g), or one for all.

        Raises:
            InputError: other shapes, or numbers that are not finite.
        """
        y = self._as_rows(y, self.dim)
        c = self._as_conditions(given)
        if len(c) not in (1, len(y)):
            raise InputError(f"{len(y)} rows of parameters and {len(c)} of conditions")
        c = c.expand(len(y), -1)
        parts = zip(y.split(CHUNK), c.split(CHUNK), strict=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and y.requires_grad):
            return torch.cat([self._log_prob(each_y, each_c) for each_y, each_c in parts])

    @torch.no_grad()
    def sample(self, n: int, given: Any, generator: torch.Generator | None = None) -> Tensor:
        """``n`` draws at each condition: float64, (n, m, d), on the CPU; (n, d) at one (g,).

        Args:
            given: conditions (m, g) or one (g,).
            generator: a CPU generator; torch's global random state without one.

        Raises:
            InputError: no such conditions.
            UsageError: a negative number of draws.
        """
        c = self._as_conditions(given)
        (n,) = draw_shape(n)
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        rows = c.repeat(n, 1)
        chosen = torch.multinomial(
            self._weights, max(len(rows), 1), replacement=True, generator=generator
        )[: len(rows)]
        y = torch.empty(
            len(rows), self.transform.constraints.unconstrained_dim, dtype=torch.float64
        )
        for k, expert in enumerate(self._experts.values()):
            of_expert = (chosen == k).nonzero().squeeze(1)
            # Draws at one condition side by side, for what an expert computes once for each.
            of_expert = of_expert[(of_expert % len(c)).argsort(stable=True)]
            for part in of_expert.split(CHUNK):
                y[part] = expert.sample_given(rows[part], generator).cpu()
        draws = self.transform.from_unconstrained(y)
        is_one = not isinstance(given, Mapping) and torch.as_tensor(given).ndim <= 1
        one = len(c) == 1 and (isinstance(given, Mapping) or is_one)
        return draws if one else draws.view(n, len(c), self.dim)

    def familiar(self, given: Any) -> Tensor:
        """p-value of each condition (m, g) under those of the fit, (m,).

        The share of the conditions fitted to at which their density is lower: small where there
        were few like it, so that what the mixture says there is a guess.
        """
        return self._familiarity.p_value(self._as_conditions(given))

    def to(self, device: torch.device | str) -> Self:
        """The same mixture, computing on ``device``."""
        other = copy.copy(self)
        other._experts = {name: expert.to(device) for name, expert in self._experts.items()}
        return other

    def expert(self, name: str) -> Self:
        """One of the experts alone, in the user's parameters.

        Raises:
            UsageError: no such expert.
        """
        if name not in self._experts:
            raise unknown_name("expert of this mixture", name, self._experts)
        other = copy.copy(self)
        other._experts = {name: self._experts[name]}
        other._weights = torch.ones(1, dtype=torch.float64)
        return other

    def with_transform(self, transform: UnconstrainingTransform) -> Self:
        """The same experts with another change of variables before them."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def __repr__(self) -> str:
        parts = zip(self._experts, self._weights.tolist(), strict=True)
        described = ", ".join(f"{name}: {weight:.3f}" for name, weight in parts)
        return f"{type(self).__name__}(d = {self.dim} given {self.given_dim}, {described})"

    def _log_prob(self, y: Tensor, c: Tensor) -> Tensor:
        out = y.new_full((len(y),), -torch.inf)
        inside = self.constraints.contains(y).nonzero().squeeze(1)
        at, log_det = self.transform.to_unconstrained(y[inside])
        finite = at.isfinite().all(dim=1)
        rows = inside[finite]
        joint = torch.cat([c[rows], at[finite]], dim=1).to(self.device)
        present = {
            name: expert
            for (name, expert), weight in zip(self._experts.items(), self._weights, strict=True)
            if weight > 0
        }
        log_weights = self._weights[self._weights > 0].log()
        log_q = log_densities(present, joint).cpu() + log_weights
        out[rows] = log_q.logsumexp(dim=1) + log_det[finite]
        return out

    def _as_conditions(self, given: Any) -> Tensor:
        """Conditions (m, g) from numbers, arrays or a mapping from names."""
        if isinstance(given, Mapping):
            if set(given) != set(self.given_names):
                raise InputError(
                    f"a condition is of {', '.join(self.given_names)}, found {', '.join(given)}"
                )
            given = [given[name] for name in self.given_names]
            given = torch.stack([torch.as_tensor(value).double() for value in given], dim=-1)
        return self._as_rows(given, self.given_dim).detach()

    @staticmethod
    def _as_rows(value: Any, columns: int) -> Tensor:
        """Finite rows (n, columns) from rows, one row, or one number a row, float64."""
        try:
            rows = torch.as_tensor(value).cpu().double()
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"numbers are expected, found {value!r}") from None
        if rows.ndim <= 1:
            rows = rows.reshape(-1, 1) if columns == 1 else rows.reshape(1, -1)
        return as_points(rows, columns).reshape(-1, columns)
