"""The mixture of experts: a torch distribution over the user's parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import constraints as torch_constraints

from amfvi.constraints.constraints import Constraints, default_names
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.errors import InputError, unknown_name
from amfvi.experts import Expert
from amfvi.experts.checks import as_points, draw_shape
from amfvi.experts.matrix import log_densities

__all__ = ["Mixture"]

CPU_CHUNK = 2**17
"""Points evaluated at a time on a CPU, so that memory stays bounded."""

ACCELERATOR_CHUNK = 2**18
"""Points evaluated at a time on an accelerator, enough to fill it."""

WIDE = 32
"""Number of parameters above which chunks shrink in proportion."""


ROUNDING = 1e-15
"""Distance from one of a sum of weights that rounding explains."""


class Mixture(Distribution):
    """The density q(x) = Σₖ wₖ qₖ(x) with frozen experts qₖ and global weights w.

    The experts live in unconstrained space; ``transform`` carries parameters there and
    back, and its Jacobian is part of ``log_prob``. A mixture is immutable. Gradients
    pass through ``log_prob`` where its input requires them. Draws have none, since what
    could be differentiated, experts and weights, is frozen.

    Args:
        experts: ordered mapping from name to fitted expert, all of one dimension.
        weights: on the simplex, shape (K,).
        transform: to unconstrained space; the identity if not given.
        names: parameter names; ``x1, x2, …`` if not given.
        scale: training standard deviation of each parameter, (d,), the unit of
            sample distances; None if unknown.

    Raises:
        InputError: parts that do not fit together.

    Examples:
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> mixture.log_prob(draws[:5]).shape, mixture.sample((3,)).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """

    arg_constraints: dict[str, torch_constraints.Constraint] = {}  # noqa: RUF012
    has_rsample = False

    def __init__(
        self,
        experts: Mapping[str, Expert],
        weights: Any,
        *,
        transform: UnconstrainingTransform | None = None,
        names: tuple[str, ...] | None = None,
        scale: Any = None,
    ) -> None:
        if not experts:
            raise InputError("a mixture needs at least one expert")
        dims = {expert.dim for expert in experts.values()}
        if len(dims) > 1:
            raise InputError(f"experts of one mixture must have one dimension, found {dims}")
        (dim,) = dims
        self._experts = dict(experts)
        self._weights = _check_weights(weights, len(experts))
        if transform is None:
            transform = UnconstrainingTransform(Constraints.unbounded(dim))
        self._transform = transform
        d = transform.constraints.dim
        self._names = names if names is not None else default_names(d)
        if transform.constraints.unconstrained_dim != dim or len(self._names) != d:
            raise InputError(
                f"experts have {dim} parameters, but the transform has "
                f"{transform.constraints.unconstrained_dim} unconstrained coordinates of "
                f"{d} parameters, and there are {len(self._names)} names"
            )
        self._scale = None if scale is None else _check_scale(scale, d)
        super().__init__(torch.Size(), torch.Size([d]), validate_args=False)

    @property
    def experts(self) -> Mapping[str, Expert]:
        """The frozen experts by name, in order; densities in unconstrained space."""
        return MappingProxyType(self._experts)

    @property
    def weights(self) -> Tensor:
        """Mixture weights, float64, shape (K,), in the order of ``experts``."""
        return self._weights.clone()

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names."""
        return self._names

    @property
    def scale(self) -> Tensor | None:
        """Training standard deviation of each parameter, (d,)."""
        return None if self._scale is None else self._scale.clone()

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return self.event_shape[0]

    @property
    def n_eff(self) -> float:
        """Effective number of experts, 1/Σw²: from 1 to K."""
        return float(1 / self._weights.square().sum())

    @property
    def transform(self) -> UnconstrainingTransform:
        """The change of variables to the experts' space."""
        return self._transform

    @property
    def constraints(self) -> Constraints:
        """The constraints on the parameters, as amfvi has them."""
        return self._transform.constraints

    @property
    def support(self) -> torch_constraints.Constraint:
        """Where the density is positive, as a torch constraint on vectors."""
        return self.constraints.torch_constraint

    @property
    def device(self) -> torch.device:
        """The device that the experts compute on."""
        return next(iter(self._experts.values())).device

    def log_prob(self, value: Any) -> Tensor:
        """Log density in nats at points (..., d); shape (...), −∞ outside the constraints.

        Evaluated in chunks on the mixture's device. The result has the dtype and
        the device of ``value``; arrays and lists count as float64 on the CPU. Where
        ``value`` requires gradients, they pass through. Experts of weight zero are not
        evaluated.

        Raises:
            InputError: a wrong last dimension, or a point that is not finite.
        """
        x = as_points(value, self.dim)
        present = self._weights > 0
        experts = {
            name: expert
            for (name, expert), weight in zip(self._experts.items(), present, strict=True)
            if weight
        }
        log_weights = self._weights[present].log().to(x.dtype).to(self.device)

        def mixed(chunk: Tensor) -> Tensor:
            return torch.logsumexp(self._log_densities(experts, chunk) + log_weights, dim=-1)

        return self._map_chunks(mixed, x).reshape(x.shape[:-1])

    def log_prob_unconstrained(self, y: Tensor, transform: UnconstrainingTransform) -> Tensor:
        """Log density (n,) in nats over the unconstrained space of another transform.

        Args:
            y: points (n, m) of that space.
        """
        x, log_det = transform.from_unconstrained_with_log_det(y)
        return self.log_prob(x) + log_det

    def mix(self, expert_log_probs: Tensor) -> Tensor:
        """Log density (...) of the mixture from those of its experts (..., K), nats."""
        log_weights = self._weights.log().to(expert_log_probs)
        return torch.logsumexp(expert_log_probs + log_weights, dim=-1)

    @torch.no_grad()
    def expert_log_probs(self, value: Any) -> Tensor:
        """Log density of each expert in nats in the user's parameters, (..., K)."""
        x = as_points(value, self.dim)
        each = self._map_chunks(lambda chunk: self._log_densities(self._experts, chunk), x)
        return each.reshape(*x.shape[:-1], len(self._experts))

    @torch.no_grad()
    def responsibilities(self, value: Any) -> Tensor:
        """Posterior probability of each expert at each point, (..., K); NaN outside."""
        joint = self.expert_log_probs(value) + self._weights.log().to(as_points(value, self.dim))
        return torch.softmax(joint, dim=-1)

    @torch.no_grad()
    def sample(
        self,
        sample_shape: Any = torch.Size(),  # noqa: B008
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw independently, in random order: float64, sample_shape + (d,), on the CPU.

        Args:
            generator: a CPU generator. If not given, draws follow torch's global random
                state, so that ``torch.manual_seed`` reproduces them.
        """
        shape = draw_shape(sample_shape)
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        n = shape.numel()
        draws = torch.empty(n, self.dim, dtype=torch.float64)
        if n == 0:
            return draws.reshape(*shape, self.dim)
        chosen = torch.multinomial(self._weights, n, replacement=True, generator=generator)
        for k, expert in enumerate(self._experts.values()):
            rows = (chosen == k).nonzero().squeeze(1)
            draws[rows] = self._sample_expert(expert, len(rows), generator)
        return draws.reshape(*shape, self.dim)

    @torch.no_grad()
    def sample_expert(self, name: str, n: int, generator: torch.Generator) -> Tensor:
        """Draw from one expert in the user's parameters: float64, (n, d), on the CPU.

        Raises:
            UsageError: no such expert.
        """
        if name not in self._experts:
            raise unknown_name("expert of this mixture", name, self._experts)
        return self._sample_expert(self._experts[name], n, generator)

    def to(self, device: torch.device | str) -> Self:
        """The same distribution, computing on ``device``."""
        experts = {name: expert.to(device) for name, expert in self._experts.items()}
        return self._with(experts=experts)

    def _with(self, *, experts: Mapping[str, Expert], weights: Any = None) -> Self:
        """A copy of this object with other experts, and other weights if given."""
        other = copy.copy(self)
        other._experts = dict(experts)
        if weights is not None:
            other._weights = _check_weights(weights, len(experts))
        return other

    def __repr__(self) -> str:
        parts = zip(self._experts, self._weights.tolist(), strict=True)
        described = ", ".join(f"{name}: {weight:.3f}" for name, weight in parts)
        return f"{type(self).__name__}(d = {self.dim}, {described})"

    def _map_chunks(self, function: Any, x: Tensor) -> Tensor:
        """``function`` of points (n, d) over all of x (..., d), on our device and back."""
        size = CPU_CHUNK if self.device.type == "cpu" else ACCELERATOR_CHUNK
        chunks = x.reshape(-1, self.dim).split(max(1, size * WIDE // max(self.dim, WIDE)))
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            results = [function(chunk.to(self.device)).to(x.device) for chunk in chunks]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _sample_expert(self, expert: Expert, n: int, generator: torch.Generator) -> Tensor:
        if n == 0:
            return torch.empty(0, self.dim, dtype=torch.float64)
        # At once, so that a seed means the same draws whatever the device and its chunks.
        return self._transform.from_unconstrained(expert.sample(n, generator).cpu())

    def _log_densities(self, experts: Mapping[str, Expert], x: Tensor) -> Tensor:
        """(n, len(experts)) in the user's parameters, −∞ outside the constraints."""
        if self._transform.is_identity:
            return log_densities(experts, x)
        inside = self.constraints.contains(x)
        out = x.new_full((len(x), len(experts)), -torch.inf)
        y, log_det = self._transform.to_unconstrained(x[inside])
        # A bound may be so near that rounding puts a point on it.
        finite = y.isfinite().all(dim=1)
        rows = inside.nonzero().squeeze(1)[finite]
        out[rows] = log_densities(experts, y[finite]) + log_det[finite, None]
        return out


def _check_weights(weights: Any, n_experts: int) -> Tensor:
    """Weights (K,) on the simplex, float64, on the CPU."""
    w = torch.as_tensor(weights, dtype=torch.float64).detach().cpu().clone()
    on_simplex = bool((w >= 0).all()) and abs(float(w.sum()) - 1) < 1e-6
    if w.shape != (n_experts,) or not on_simplex:
        raise InputError(
            f"weights must be {n_experts} non-negative numbers that sum to 1, found {w.tolist()}"
        )
    # Weights that sum to one but for rounding stay as they are, so that a copy is equal.
    return w if abs(float(w.sum()) - 1) < ROUNDING else w / w.sum()


def _check_scale(scale: Any, dim: int) -> Tensor:
    s = torch.as_tensor(scale, dtype=torch.float64).detach().cpu().clone()
    if s.shape != (dim,) or not bool((s > 0).all() and s.isfinite().all()):
        raise InputError(f"scale must be {dim} finite positive numbers, found {s.tolist()}")
    return s
