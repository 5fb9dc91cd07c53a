"""Fit a posterior to whatever describes it: the one way in, for Python and command line."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Unpack, overload

from amfvi.arguments import (
    DrawsSettings,
    Settings,
    check_checkpoint,
    check_condition,
    check_names,
    check_options,
    sort_settings,
)
from amfvi.cluster import share
from amfvi.conditional.fit import fit_pairs
from amfvi.conditional.posterior import ConditionalPosterior
from amfvi.conditional.sources import GivenLike, PairsLike, recognize_pairs, to_pairs
from amfvi.density.log_density import LogDensity
from amfvi.draws.draws import Draws, DrawsLike
from amfvi.inference.checkpoint import checkpointing
from amfvi.inference.given_draws import infer_from_draws
from amfvi.inference.infer import Inference, infer
from amfvi.posterior import Posterior
from amfvi.reporting import Reporter
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sources import (
    DensityLike,
    DrawsWithDensity,
    InputLike,
    Source,
    kind_of,
    recognize,
    split_source,
    to_source,
)
from amfvi.two_stage.fit import fit_split
from amfvi.two_stage.options import FitOptions
from amfvi.two_stage.split import Split
from amfvi.variables import Variables

__all__ = ["fit", "fit_source"]


@overload
def fit(
    data: InputLike,
    *,
    given: None = None,
    density: DensityLike | None = None,
    checkpoint: str | Path | None = None,
    options: FitOptions | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Settings],
) -> Posterior: ...
@overload
def fit(
    data: str | Path | DrawsLike,
    *,
    given: GivenLike,
    given_names: Sequence[str] | None = None,
    options: FitOptions | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Settings],
) -> ConditionalPosterior: ...
@overload
def fit(
    data: PairsLike,
    *,
    checkpoint: str | Path | None = None,
    options: FitOptions | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Settings],
) -> ConditionalPosterior: ...
def fit(
    data: Any,
    *,
    given: Any = None,
    given_names: Sequence[str] | None = None,
    density: DensityLike | None = None,
    checkpoint: str | Path | None = None,
    options: FitOptions | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Settings],
) -> Posterior | ConditionalPosterior:
    """Fit a mixture of normalizing flows to a posterior (AMF-VI, arXiv:2510.02056).

    Args:
        data: the name of a target or a :class:`~amfvi.targets.Target`; the path of a CSV,
            NPY, NPZ, Parquet or netCDF file of draws; an n × d array, tensor or data frame of
            draws, or :class:`~amfvi.Draws`; or a :class:`~amfvi.LogDensity`. With a condition:
            parameters y, a file of pairs, a :class:`~amfvi.Simulator`, or the name of a target.
        given: conditions c beside the parameters, one a row, (n, g) or (n,); of a file the
            names of its columns that are conditions.
        given_names: ``c1, c2, …`` if not given.
        density: the log density that given draws are from, or its function: the fit then has
            a verdict and an evidence, and nothing is sampled.
        checkpoint: a directory where the sampler of a log density keeps its state, or a
            simulator what it made. The same call after an interrupt goes on from there.
        options: how to fit; or give its fields as keyword arguments.
        reporter: of log lines and progress; nothing is printed without one.
        settings: the fields of :class:`~amfvi.FitOptions`, and of draws those of
            :meth:`amfvi.Draws.from_array`: ``names``, ``constraints``, ….

    Returns:
        A posterior. Its ``summary`` tells how it was fitted and, with a log density, its
        ``diagnostics`` how far to trust it. With a condition a
        :class:`~amfvi.ConditionalPosterior`, whose ``given(c)`` is a mixture.

    Raises:
        UsageError: an unknown name or an option that does not apply to ``data``.
        InputError: draws or a density that nothing can be fitted to.
        FitError: an expert or the weights could not be fitted.

    Examples:
        >>> import numpy as np
        >>> draws = np.random.default_rng(0).normal(size=(500, 2))
        >>> posterior = fit(draws, experts=["gmm"], names=["mu", "nu"], seed=0)
        >>> posterior.log_prob(draws[:3]).shape
        torch.Size([3])
    """
    of_draws, options = sort_settings(settings, options)
    of_pairs = recognize_pairs(data, given)
    check_condition(of_pairs, given_names, density)
    if of_pairs is not None:
        check_checkpoint(of_pairs, checkpoint)
        options = check_options(options, of_pairs).for_pairs()
        pairs = to_pairs(data, given, given_names, of_draws, options, reporter, checkpoint)
        return ConditionalPosterior.from_mixture(*fit_pairs(pairs, options, reporter=reporter))
    data = recognize(data)
    kind = kind_of(data, density)
    check_names(of_draws, data, kind, options)
    check_checkpoint(kind, checkpoint)
    return _fit_alone(to_source(data, of_draws, density), checkpoint, options, reporter)


def _fit_alone(
    source: Source,
    checkpoint: str | Path | None,
    options: FitOptions,
    reporter: Reporter | None,
) -> Posterior:
    """Fit to one posterior, keeping the sampler's state if it is a log density."""
    if not isinstance(source, LogDensity):
        return fit_source(source, options, reporter=reporter)
    with checkpointing(checkpoint, source, options) as state:
        return fit_source(source, options, reporter=reporter, checkpoint=state)


def fit_source(
    source: Source,
    options: FitOptions,
    *,
    reporter: Reporter | None = None,
    checkpoint: SamplerCheckpoint | None = None,
) -> Posterior:
    """Fit to a source that has been checked; what ``amfvi.fit`` and ``amfvi fit`` share.

    Args:
        checkpoint: where the sampler of a log density saves its state, and resumes from.

    Raises:
        InputError, FitError: as :func:`fit`.

    Examples:
        >>> from amfvi import targets
        >>> posterior = fit_source(targets.get("bimodal"), FitOptions(experts="gmm", n_draws=200))
        >>> posterior.dim
        2
    """
    if isinstance(source, LogDensity):
        share(source, options.cluster)
        with source.closing():
            inference = infer(source, options, reporter=reporter, checkpoint=checkpoint)
        return _judged(inference, source, source.variables)
    if isinstance(source, DrawsWithDensity):
        share(source.density, options.cluster)
        with source.density.closing():
            inference = infer_from_draws(source.draws, source.density, options, reporter=reporter)
        return _judged(inference, source.density, source.draws.variables)
    split = split_source(source, options)
    if reporter is not None:
        reporter.log(_describe_split(split, options))
    mixture, summary = fit_split(split, options, timeout=options.timeout, reporter=reporter)
    variables = source.variables if isinstance(source, Draws) else None
    return Posterior.from_mixture(mixture, summary=summary, variables=variables)


def _judged(inference: Inference, density: LogDensity, variables: Variables) -> Posterior:
    return Posterior.from_mixture(
        inference.mixture,
        summary=inference.summary,
        diagnostics=inference.diagnostics,
        log_density=density,
        weighted=inference.weighted,
        variables=variables,
    )


def _describe_split(split: Split, options: FitOptions) -> str:
    folds = f"{options.folds} fold{'s' * (options.folds > 1)}"
    n_test = 0 if split.test is None else len(split.test)
    return (
        f"{split.dim} parameters, {len(split.draws)} draws in {folds} ({split.n_train} to train "
        f"a member, {split.n_heldout} held out), {n_test} to test"
    )


def _signature() -> inspect.Signature:
    """The signature of :func:`fit` with every keyword argument, for ``help`` and editors."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    named = [
        inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type)
        for f in fields(FitOptions)
    ]
    named += [
        inspect.Parameter(name, keyword, default=None, annotation=annotation)
        for name, annotation in DrawsSettings.__annotations__.items()
    ]
    signature = inspect.signature(fit)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    return signature.replace(parameters=[*own, *named])


fit.__signature__ = _signature()  # type: ignore[attr-defined]
