"""Posteriors in pieces: draws, or data, too many for one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.distributions import Distribution

from amfvi.constraints.constraints import Constraints, ConstraintsLike
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.log_density import LogDensity
from amfvi.draws.draws import Draws, DrawsLike
from amfvi.draws.readers import read_draws
from amfvi.errors import InputError, UsageError
from amfvi.mixture import Mixture
from amfvi.pools import Workers
from amfvi.posterior import Posterior
from amfvi.two_stage.fit import fit_split
from amfvi.two_stage.options import FitOptions, FitSettings, InputKind
from amfvi.two_stage.split import split_draws

__all__ = ["fit_shards", "product"]

N_SEEN = 5_000
"""Draws of each shard from which the change of variables is found that all of them share."""


def fit_shards(
    shards: Sequence[str | Path | DrawsLike],
    *,
    pool: Any = None,
    constraints: ConstraintsLike = None,
    **settings: Unpack[FitSettings],
) -> Posterior:
    """Fit one mixture to draws of one posterior that lie in several pieces.

    Each piece is fitted alone, by the worker that takes it, and the density is the mean of
    theirs, weighted by their numbers of draws. A path is read where it is fitted: what one
    machine has to hold are the draws of one shard. The experts of a shard have one member
    each unless ``folds`` is given, since the shards are an ensemble already.

    Args:
        shards: paths of files of draws, or arrays (n, d), with the same parameters.
        pool: a number of processes, or anything with ``map``, such as :class:`~amfvi.Cluster`.
        constraints: on the parameters, as of :func:`amfvi.fit`.
        settings: fields of :class:`~amfvi.FitOptions`.

    Returns:
        A posterior whose experts are called ``maf, shard 1`` and so on.

    Raises:
        UsageError: no shard, shards of different parameters, or an unknown option.
        InputError, FitError: as :func:`amfvi.fit`; or the pool fails.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
        >>> mixture = fit_shards([x[:1000], x[1000:]], experts="gmm")
        >>> list(mixture.experts), mixture.log_prob(x[:3]).shape
        (['gmm, shard 1', 'gmm, shard 2'], torch.Size([3]))
    """
    if isinstance(shards, str | Path) or not isinstance(shards, Sequence) or not shards:
        raise UsageError(f"shards must be a sequence of files or arrays, found {shards!r}")
    settings.setdefault("folds", 1)
    settings.setdefault("test_fraction", 0.0)
    options = FitOptions(**settings)
    options.check_for(InputKind.DRAWS)
    seen = _look_at_all(shards, constraints, pool)
    names = seen[0].names
    some = torch.cat([look.some for look in seen])
    transform = UnconstrainingTransform.fit(Constraints.parse(names, constraints), some, None)
    fits = _map(partial(_fit, constraints=constraints, transform=transform, options=options),
                [(shard, number) for number, shard in enumerate(shards)], pool)  # fmt: skip
    sizes = torch.tensor([look.n for look in seen], dtype=torch.float64)
    experts, weights = {}, []
    for number, (mixture, share) in enumerate(zip(fits, sizes / sizes.sum(), strict=True)):
        for (name, expert), weight in zip(mixture.experts.items(), mixture.weights, strict=True):
            if weight > 0:
                experts[f"{name}, shard {number + 1}"] = expert
                weights.append(float(weight * share))
    scale = some.std(dim=0)
    total = torch.tensor(weights, dtype=torch.float64)
    mixture = Mixture(experts, total / total.sum(), transform=transform, names=names, scale=scale)
    return Posterior.from_mixture(mixture)


@dataclass(frozen=True)
class _Look:
    """What is known of a shard before it is fitted: names, number of draws, some of them."""

    names: tuple[str, ...]
    n: int
    some: Tensor


def _look_at_all(
    shards: Sequence[str | Path | DrawsLike], constraints: ConstraintsLike, pool: Any
) -> list[_Look]:
    """What is known of each shard.

    Raises:
        UsageError: shards of different parameters.
    """
    seen: list[_Look] = _map(partial(_look, constraints=constraints), shards, pool)
    names = seen[0].names
    for number, look in enumerate(seen, start=1):
        if look.names != names:
            raise UsageError(
                f"shard {number} has the parameters {', '.join(look.names)}, the first one has "
                f"{', '.join(names)}"
            )
    return seen


def _map(function: Callable[[Any], Any], arguments: Sequence[Any], pool: Any) -> list[Any]:
    with Workers(function, pool, "shards", differentiates=True).closing() as workers:
        return list(workers.map(list(arguments)))


def _read(shard: str | Path | DrawsLike, constraints: ConstraintsLike) -> Draws:
    if isinstance(shard, str | Path):
        return read_draws(Path(shard), constraints=constraints)
    return shard if isinstance(shard, Draws) else Draws.from_array(shard, constraints=constraints)


def _look(shard: str | Path | DrawsLike, constraints: ConstraintsLike) -> _Look:
    draws = _read(shard, constraints)
    if draws.sample_weight is not None:
        raise InputError("weighted draws cannot be fitted in shards: resample them first")
    every = max(1, len(draws.values) // N_SEEN)
    return _Look(draws.names, len(draws.values), draws.values[::every].clone())


def _fit(
    shard: tuple[str | Path | DrawsLike, int],
    constraints: ConstraintsLike,
    transform: UnconstrainingTransform,
    options: FitOptions,
) -> Mixture:
    data, number = shard
    draws = _read(data, constraints)
    options = replace(options, seed=options.seed + number)
    split = split_draws(draws, options.test_share, options.seed, options.folds)
    split = replace(split, transform=transform)
    return fit_split(split, options, timeout=options.timeout)[0]


def product(subposteriors: Sequence[Mixture]) -> LogDensity:
    """The posterior of all data as the product of the posteriors of its parts.

    Data that lie on several machines, or came one batch after the other, are sampled apart,
    each with the prior to the power of one over the number of parts; mixtures are fitted to
    the draws, and their product, Σ log qₛ(θ), is the posterior of all of them (Neiswanger, Wang
    & Xing 2014, arXiv:1311.4780). Fit it, :func:`amfvi.fit`, for draws, evidence and a verdict.

    Args:
        subposteriors: mixtures, or posteriors as ``fit`` returns them, of the same parameters.

    Raises:
        UsageError: none, or mixtures of different parameters or constraints.

    Examples:
        >>> from amfvi.experts import GMM
        >>> generator = torch.Generator().manual_seed(0)
        >>> parts = [Mixture({"gmm": GMM().fit(torch.randn(500, 1, generator=generator))}, [1.0])
        ...          for _ in range(4)]
        >>> density = product(parts)
        >>> bool(density.log_prob(torch.tensor([[0.0], [1.0]]).double()).diff() < -1)
        True
    """
    parts = list(subposteriors)
    if not parts:
        raise UsageError("a product needs one posterior at least")
    if wrong := [part for part in parts if not isinstance(part, Mixture)]:
        raise UsageError(f"a product is of mixtures, found {type(wrong[0]).__name__}")
    first = parts[0]
    for number, part in enumerate(parts[1:], start=2):
        for what in ("names", "constraints"):
            if getattr(part, what) != getattr(first, what):
                raise UsageError(
                    f"posterior {number} has other {what} than the first: {getattr(part, what)}, "
                    f"not {getattr(first, what)}"
                )
    density = LogDensity(
        partial(_sum_of_log_densities, parts),
        first.dim,
        names=first.names,
        constraints=first.constraints,
        prior=_OneOf(parts),
    )
    density.caveat = (
        f"this is about the product of {len(parts)} fitted densities: nothing is known of their "
        "own errors, which add up"
    )
    return density


def _sum_of_log_densities(parts: Sequence[Mixture], x: Tensor) -> Tensor:
    return torch.stack([part.log_prob(x) for part in parts]).sum(dim=0)


class _OneOf(Distribution):
    """Draws of distributions in turn: where the product of their densities may lie."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, parts: Sequence[Mixture]) -> None:
        self._parts = parts
        super().__init__(torch.Size(), parts[0].event_shape, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        n = shape.numel()
        per_part = -(-n // len(self._parts))
        each = [part.sample((per_part,)) for part in self._parts]
        return torch.stack(each, dim=1).flatten(0, 1)[:n].reshape(*shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        each = torch.stack([part.log_prob(value) for part in self._parts])
        return each.logsumexp(dim=0) - torch.tensor(float(len(self._parts))).log()
