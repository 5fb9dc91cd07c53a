"""The fitted mixture: a torch distribution over the user's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from amfvi.draws import default_names
from amfvi.errors import FitError, InputError, unknown_name
from amfvi.experts import Expert, Folds
from amfvi.experts.base import check_points
from amfvi.support import Support

if TYPE_CHECKING:
    from amfvi.diagnostics import Diagnostics
    from amfvi.log_density import LogDensity
    from amfvi.two_stages import FitSummary

__all__ = ["Mixture", "cross_validated_log_densities", "log_densities"]

# Points at a time, so that memory in use stays bounded however many there are, and an
# accelerator is filled. Experts cut them smaller themselves (experts/pieces.py).
CPU_CHUNK = 2**17
ACCELERATOR_CHUNK = 2**18
WIDE = 32  # parameters, above which chunks shrink in proportion


class Mixture(Distribution):
    """q(x) = Σₖ wₖ qₖ(x) with frozen experts qₖ and global weights w.

    The experts live in unconstrained space; bounded parameters are carried there
    and back by the bijection of ``support``, whose Jacobian is part of ``log_prob``.

    Args:
        experts: ordered mapping from name to fitted expert, all of one dimension.
        weights: on the simplex, shape (K,).
        support: bounds of the d parameters; unbounded if not given.
        names: parameter names; ``x1, x2, …`` if not given.
        seed: of the generator that :meth:`sample` uses when none is given.
        scale: training standard deviation of each parameter, (d,), the unit of
            sample distances; None if unknown.
        summary: how the mixture was fitted, if it was fitted in this process.
        diagnostics: how far to trust it, if it was fitted to a log density.
        log_density: the one it was fitted to, if that was in this process.

    Raises:
        InputError: parts that do not fit together.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    has_rsample = False

    def __init__(
        self,
        experts: Mapping[str, Expert],
        weights: Any,
        *,
        support: Support | None = None,
        names: tuple[str, ...] | None = None,
        seed: int = 0,
        scale: Any = None,
        summary: FitSummary | None = None,
        diagnostics: Diagnostics | None = None,
        log_density: LogDensity | None = None,
    ) -> None:
        if not experts:
            raise InputError("a mixture needs at least one expert")
        dims = {expert.dim for expert in experts.values()}
        if len(dims) > 1:
            raise InputError(f"experts of one mixture must have one dimension, found {dims}")
        (dim,) = dims
        w = torch.as_tensor(weights, dtype=torch.float64).detach().cpu().clone()
        on_simplex = bool((w >= 0).all()) and abs(float(w.sum()) - 1) < 1e-6
        if w.shape != (len(experts),) or not on_simplex:
            raise InputError(
                f"weights must be {len(experts)} non-negative numbers that sum to 1, "
                f"found {w.tolist()}"
            )
        self._experts = dict(experts)
        self._weights = w / w.sum()
        self._box = support if support is not None else Support.unbounded(dim)
        self.names = names if names is not None else default_names(self._box.dim)
        if self._box.free != dim or len(self.names) != self._box.dim:
            raise InputError(
                f"experts have {dim} parameters, but the support has {self._box.free} free "
                f"coordinates of {self._box.dim} parameters, and there are {len(self.names)} names"
            )
        self.seed = seed
        self.scale = None if scale is None else torch.as_tensor(scale, dtype=torch.float64)
        self.summary = summary
        self.diagnostics = diagnostics
        self.log_density = log_density
        self._generator = torch.Generator().manual_seed(seed)
        super().__init__(torch.Size(), torch.Size([self._box.dim]), validate_args=False)

    @property
    def experts(self) -> Mapping[str, Expert]:
        """The frozen experts by name, in order; densities in unconstrained space."""
        return MappingProxyType(self._experts)

    @property
    def weights(self) -> Tensor:
        """Mixture weights, float64, shape (K,), in the order of ``experts``."""
        return self._weights.clone()

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return self.event_shape[0]

    @property
    def n_eff(self) -> float:
        """Effective number of experts, 1/Σw²: from 1 to K."""
        return float(1 / self._weights.square().sum())

    @property
    def support(self) -> constraints.Constraint:
        """Where the density is positive, as a torch constraint on vectors."""
        return self._box.constraint

    @property
    def bounds(self) -> Support:
        """The same as a lower and an upper bound per parameter."""
        return self._box

    @property
    def device(self) -> torch.device:
        """Where the experts compute."""
        return next(iter(self._experts.values())).device

    @torch.no_grad()
    def log_prob(self, value: Any) -> Tensor:
        """Log density in nats at points (..., d); shape (...), −inf outside the support.

        Evaluated in chunks on the mixture's device. The result has the dtype and
        the device of ``value``; arrays and lists count as float64 on the CPU. Experts
        of weight zero are not evaluated.

        Raises:
            InputError: a wrong last dimension.
        """
        x = self._points(value)
        out = torch.empty(x.shape[:-1], dtype=x.dtype, device=x.device)
        present = self._weights > 0
        experts = {
            name: expert
            for (name, expert), weight in zip(self._experts.items(), present, strict=True)
            if weight
        }
        log_weights = self._weights[present].log().to(x.dtype).to(self.device)
        for rows, chunk in self._chunks(x, out.view(-1)):
            joint = self._log_densities(experts, chunk) + log_weights
            rows.copy_(torch.logsumexp(joint, dim=-1))
        return out

    def mix(self, expert_log_probs: Tensor) -> Tensor:
        """Log density (...) of the mixture from those of its experts (..., K), nats."""
        log_weights = self._weights.log().to(expert_log_probs)
        return torch.logsumexp(expert_log_probs + log_weights, dim=-1)

    @torch.no_grad()
    def expert_log_probs(self, value: Any) -> Tensor:
        """Each expert's own log density in nats in the user's parameters, (..., K)."""
        x = self._points(value)
        out = torch.empty(*x.shape[:-1], len(self._experts), dtype=x.dtype, device=x.device)
        for rows, chunk in self._chunks(x, out.view(-1, len(self._experts))):
            rows.copy_(self._log_densities(self._experts, chunk))
        return out

    @torch.no_grad()
    def responsibilities(self, value: Any) -> Tensor:
        """Probability that each expert made each point, (..., K); NaN outside the support."""
        joint = self.expert_log_probs(value) + self._weights.log().to(self._points(value))
        return torch.softmax(joint, dim=-1)

    @torch.no_grad()
    def sample(
        self,
        sample_shape: Any = torch.Size(),  # noqa: B008
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws, float64, shape sample_shape + (d,), on the CPU.

        How many draws each expert makes is itself random, only those are made, and
        they are in random order. Without a generator, the mixture's own is used;
        the global random state is never touched.
        """
        shape = torch.Size([sample_shape] if isinstance(sample_shape, int) else sample_shape)
        generator = self._generator if generator is None else generator
        n = shape.numel()
        draws = torch.empty(n, self.dim, dtype=torch.float64)
        if n == 0:
            return draws.reshape(*shape, self.dim)
        which = torch.multinomial(self._weights, n, replacement=True, generator=generator)
        for k, expert in enumerate(self._experts.values()):
            rows = (which == k).nonzero().squeeze(1)
            draws[rows] = self._sample_expert(expert, len(rows), generator)
        return draws.reshape(*shape, self.dim)

    @torch.no_grad()
    def sample_expert(self, name: str, n: int, generator: torch.Generator) -> Tensor:
        """``n`` draws of one expert in the user's parameters, float64, (n, d), on the CPU.

        Raises:
            UsageError: no such expert.
        """
        if name not in self._experts:
            raise unknown_name("expert of this mixture", name, self._experts)
        return self._sample_expert(self._experts[name], n, generator)

    def to(self, device: torch.device | str) -> Mixture:
        """The same mixture, computing on ``device``."""
        experts = {name: expert.to(device) for name, expert in self._experts.items()}
        return Mixture(
            experts,
            self._weights,
            support=self._box,
            names=self.names,
            seed=self.seed,
            scale=self.scale,
            summary=self.summary,
            diagnostics=self.diagnostics,
            log_density=self.log_density,
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model to a new directory, to be read by ``amfvi.load``.

        Raises:
            InputError: the directory exists and ``overwrite`` is False.
        """
        from amfvi.checkpoint import save

        return save(self, path, overwrite=overwrite)

    def to_arviz(self, n: int = 4000, **options: Any) -> Any:
        """Draws as ArviZ data; see :func:`amfvi.bridges.arviz_data.to_arviz`.

        Raises:
            UsageError: ArviZ is not installed.
        """
        from amfvi.bridges.arviz_data import to_arviz

        return to_arviz(self, n, **options)

    def __repr__(self) -> str:
        parts = zip(self._experts, self._weights.tolist(), strict=True)
        described = ", ".join(f"{name}: {weight:.3f}" for name, weight in parts)
        return f"Mixture(d = {self.dim}, {described})"

    def _points(self, value: Any) -> Tensor:
        """``value`` as a floating tensor of finite points (..., d)."""
        if not isinstance(value, Tensor):
            array = np.asarray(value)
            if array.dtype.kind not in "fiu":
                raise InputError(f"points must be real numbers, found dtype {array.dtype}")
            value = torch.from_numpy(array.astype(np.float64))
        elif not value.is_floating_point() and not value.is_complex():
            value = value.double()
        x = check_points(value, self.dim)
        if not bool(torch.isfinite(x).all()):
            point = x[~torch.isfinite(x).all(dim=-1)][0].tolist()
            raise InputError(f"points must be finite, found {point}")
        return x

    def _chunk_size(self) -> int:
        size = CPU_CHUNK if self.device.type == "cpu" else ACCELERATOR_CHUNK
        return max(1, size * WIDE // max(self.dim, WIDE))

    def _chunks(self, x: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of a slice of ``out`` and the points that belong to it, on our device."""
        size = self._chunk_size()
        points = x.reshape(-1, self.dim)
        for rows, chunk in zip(out.split(size), points.split(size), strict=True):
            yield rows, chunk.to(self.device)

    def _sample_expert(self, expert: Expert, n: int, generator: torch.Generator) -> Tensor:
        if n == 0:
            return torch.empty(0, self.dim, dtype=torch.float64)
        # At once, so that a seed means the same draws whatever the device and its chunks.
        return self._box.from_unconstrained(expert.sample(n, generator).cpu())

    def _log_densities(self, experts: Mapping[str, Expert], x: Tensor) -> Tensor:
        """(n, len(experts)) in the user's parameters, −inf outside the support."""
        if not self._box.bounded:
            return log_densities(experts, x)
        inside = self._box.contains(x)
        out = x.new_full((len(x), len(experts)), -torch.inf)
        y, log_det = self._box.to_unconstrained(x[inside])
        # A bound may be so near that rounding puts a point on it.
        finite = y.isfinite().all(dim=1)
        inside[inside.clone()] = finite
        out[inside] = log_densities(experts, y[finite]) + log_det[finite, None]
        return out


def log_densities(experts: Mapping[str, Expert], y: Tensor) -> Tensor:
    """Log densities (n, K) in nats of each expert at points ``y`` (n, d).

    Raises:
        FitError: an expert returns NaN; the message names it and the point.
    """
    return _columns({name: expert.log_prob(y) for name, expert in experts.items()}, y)


def cross_validated_log_densities(experts: Mapping[str, Expert], folds: Folds) -> Tensor:
    """Log densities (m, K) in nats at the held-out draws, as if nothing had seen them.

    Raises:
        FitError: an expert returns NaN; the message names it and the point.
    """
    columns = {name: expert.log_prob_cross_validated(folds) for name, expert in experts.items()}
    return _columns(columns, folds.draws[folds.is_heldout])


def _columns(columns: Mapping[str, Tensor], y: Tensor) -> Tensor:
    for name, column in columns.items():
        broken = column.isnan().to(y.device)
        if bool(broken.any()):
            raise FitError(f"expert {name!r} has density NaN at {y[broken][0].tolist()}")
    return torch.stack(list(columns.values()), dim=1)
