"""Bayes' rule for one parameter: a density of the condition given it, times a density of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from amfvi.errors import UsageError
from amfvi.experts.base import Expert
from amfvi.experts.log_linear import TAIL_RATE, LogLinear
from amfvi.experts.parallel import map_chunked
from amfvi.experts.reflected import ReflectedExpert, clamp_inside
from amfvi.experts.settings import Settings

__all__ = ["LikelihoodExpert"]

SUBDIVISIONS = 16
"""Parts of the interval between two nodes that the prior is tabulated at."""

BOUNDED_TAIL_RATE = 1e9
"""Rate of the tails of a posterior where the first and the last node are bounds, in ranges."""

CHUNK_ROWS = 2**12
"""Conditions of all members whose posteriors are computed at a time."""


class LikelihoodExpert(Expert):
    """q(y | c) ∝ q(y) q(c | y), normalized over nodes between which it is log-linear.

    Where the prior is reflected at bounds, there is nothing beyond them.

    Derivatives in the condition are those with the nodes held where they are, some percent off.

    Args:
        config: settings.
        prior: a density of the parameter, with as many members.
        likelihood: a density of the condition given the parameter.
        nodes: of the quadrature, values of the parameter (N,), ascending; as many more are placed
            for each condition where its posterior is.

    Examples:
        >>> from amfvi.experts import NLE
        >>> c = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> expert = NLE(max_steps=25).fit(torch.cat([c, c[:, :1]], dim=1), given=2, folds=2)
        >>> expert.dim, expert.given, expert.sample_given(c[:5]).shape
        (1, 2, torch.Size([5, 1]))
    """

    def __init__(self, config: Settings, prior: Expert, likelihood: Expert, nodes: Tensor) -> None:
        super().__init__(config, 1, prior.n_members, likelihood.dim)
        self.prior, self.likelihood = prior, likelihood
        self.nodes = nodes
        self._bounds = (prior.low, prior.high) if isinstance(prior, ReflectedExpert) else None
        self._tail_rate = TAIL_RATE if self._bounds is None else BOUNDED_TAIL_RATE
        self._prior = self._tabulated_prior()

    def within(self, low: Tensor, high: Tensor) -> LikelihoodExpert:
        """The same posterior within bounds (1,), at which the prior is reflected.

        Nodes beyond them are replaced by as many between them.
        """
        inside = self.nodes[(self.nodes > low.to(self.nodes)) & (self.nodes < high.to(self.nodes))]
        inside = inside[: len(self.nodes) - 2]
        n_others = len(self.nodes) - len(inside)
        others = torch.linspace(float(low), float(high), n_others, dtype=torch.float64)
        nodes = torch.cat([inside, others.to(inside)]).sort().values
        prior = ReflectedExpert(self.prior, low, high).to(self.device)
        return type(self)(self.config, prior, self.likelihood, nodes)

    def tensors(self) -> dict[str, Tensor]:
        """Those of both densities, and the nodes, on the CPU."""
        named = {f"prior.{name}": value for name, value in self.prior.tensors().items()}
        named |= {f"likelihood.{name}": value for name, value in self.likelihood.tensors().items()}
        return named | {"nodes": self.nodes.cpu()}

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        parts = self.prior.to(device), self.likelihood.to(device), self.nodes.to(device)
        moved = type(self)(self.config, *parts)
        moved.report = self.report
        return moved

    @property
    def device(self) -> torch.device:
        """Device of the fitted numbers."""
        return self.nodes.device

    def _log_prob(self, x: Tensor) -> Tensor:
        return map_chunked(self._density, x, CHUNK_ROWS)

    def _density(self, x: Tensor) -> Tensor:
        posteriors, index = self._posteriors(x[..., : self.given])
        if index is not None:
            posteriors = posteriors.select(index)
        return posteriors.log_prob(x[..., self.given])

    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        if given is None:
            raise UsageError("a posterior by Bayes' rule has no draws without a condition")
        uniform = torch.rand(self.n_members, n, generator=generator, dtype=torch.float64)
        uniform = uniform.to(self.device)
        # Networks in single precision move a draw by less than matters, in half the time.
        posteriors, index = self._posteriors(given.float())
        posteriors = replace(
            posteriors, x=posteriors.x.double(), log_values=posteriors.log_values.double()
        )
        if index is None:
            return self._clamped(posteriors.quantile(uniform[..., None])).to(dtype)
        # Draws of one posterior side by side, so that its masses are computed once.
        place = _places(index, posteriors.x.shape[1])
        probability = uniform.new_full((*posteriors.x.shape[:2], int(place.max()) + 1), 0.5)
        member = torch.arange(self.n_members, device=self.device)[:, None]
        probability[member, index, place] = uniform
        drawn = posteriors.quantile(probability)
        return self._clamped(drawn[member, index, place][..., None]).to(dtype)

    def _clamped(self, x: Tensor) -> Tensor:
        """Draws inside the bounds, if there are any, whatever the rounding."""
        if self._bounds is None:
            return x
        return clamp_inside(x, *(bound.to(x) for bound in self._bounds))

    def _posteriors(self, condition: Tensor) -> tuple[LogLinear, Tensor | None]:
        """The posterior at each condition (members, n, given), computed once where they repeat.

        Returns:
            Densities (members, u), and which of them belongs to each condition, (members, n);
            None where that is the one in its place.
        """
        if condition.requires_grad:  # repeats have derivatives of their own
            return _joined(self._at, condition), None
        members, n = condition.shape[:2]
        flat = condition.reshape(-1, self.given)
        if self.given == 1:  # much quicker than rows
            found, index = flat[:, 0].unique(return_inverse=True)
            found = found[:, None]
        else:
            found, index = flat.unique(dim=0, return_inverse=True)
        if len(found) >= n:
            return _joined(self._at, condition), None
        return _joined(self._at, found.expand(members, -1, -1)), index.view(members, n)

    def _at(self, condition: Tensor) -> LogLinear:
        members, n = condition.shape[:2]
        nodes = self.nodes.to(condition)
        prior = replace(
            self._prior,
            x=self._prior.x.to(condition),
            log_values=self._prior.log_values.to(condition),
        )

        def at(x: Tensor) -> LogLinear:
            of_prior = prior.interpolate(x.flatten(1)).view_as(x)
            log_values = of_prior + self._log_likelihood(condition, x)
            return LogLinear(x=x, log_values=log_values, tail_rate=self._tail_rate)

        coarse = at(nodes.expand(members, n, -1))
        with torch.no_grad():
            near = coarse.spread(len(nodes))
        fine = at(near)
        x, order = torch.cat([coarse.x, near], dim=2).sort(dim=2)
        values = torch.cat([coarse.log_values, fine.log_values], dim=2)
        return LogLinear(x=x, log_values=values.gather(2, order), tail_rate=self._tail_rate)

    @torch.no_grad()
    def _tabulated_prior(self) -> LogLinear:
        """The prior of each member, (members,), at nodes so dense that lines between them do."""
        share = torch.arange(SUBDIVISIONS).to(self.nodes) / SUBDIVISIONS
        dense = torch.lerp(self.nodes[:-1, None], self.nodes[1:, None], share).flatten()
        x = torch.cat([dense, self.nodes[-1:]]).expand(self.n_members, -1)
        log_values = self.prior._log_prob(x[..., None])
        return LogLinear(x=x, log_values=log_values, tail_rate=self._tail_rate)

    def _log_likelihood(self, condition: Tensor, y: Tensor) -> Tensor:
        """log q(c | y) at the parameters (members, n, N) of each condition."""
        # Node by node, so that what is computed at one of them is computed once for it.
        nodes = y.mT
        repeated = condition[:, None].expand(-1, nodes.shape[1], -1, -1)
        rows = torch.cat([nodes[..., None], repeated], dim=3)
        return self.likelihood._log_prob(rows.flatten(1, 2)).view_as(nodes).mT


def _joined(compute: Callable[[Tensor], LogLinear], condition: Tensor) -> LogLinear:
    """Posteriors at conditions (members, n, given), some at a time."""
    size = max(1, CHUNK_ROWS // len(condition))
    parts = [compute(part) for part in condition.split(size, dim=1)]
    return replace(
        parts[0],
        x=torch.cat([part.x for part in parts], dim=1),
        log_values=torch.cat([part.log_values for part in parts], dim=1),
    )


def _places(index: Tensor, n: int) -> Tensor:
    """For each number (members, m) below n, how many equal ones of its member precede it."""
    order = index.argsort(dim=1, stable=True)
    ordered = index.gather(1, order)
    first = torch.searchsorted(ordered, torch.arange(n, device=index.device).repeat(len(index), 1))
    place = torch.arange(index.shape[1], device=index.device) - first.gather(1, ordered)
    return torch.empty_like(index).scatter(1, order, place)
