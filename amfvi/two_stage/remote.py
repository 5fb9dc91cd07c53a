"""Stage one on a cluster: each expert is a task of its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from amfvi.cluster import Cluster
from amfvi.errors import AmfviWarning
from amfvi.experts import Expert, ExpertConfig, FitReport, Folds
from amfvi.randomness import generator_for
from amfvi.reporting import Reporter
from amfvi.two_stage.job import Job
from amfvi.two_stage.worker_process import run_job

__all__ = ["fit_on_cluster"]


def fit_on_cluster(
    cluster: Cluster,
    configs: Mapping[str, ExpertConfig],
    folds: Folds,
    seed: int,
    device: torch.device | str,
    *,
    reporter: Reporter,
    timeout: float | None,
) -> dict[str, tuple[Expert, FitReport]]:
    """Fit all experts at once, each as on this machine; arguments as of ``fit_experts``.

    Raises:
        FitError: an expert could not be fitted; the others end.
        InputError: workers of the cluster died again and again.

    Examples:
        >>> sorted(fit_on_cluster.__annotations__)[:3]
        ['cluster', 'configs', 'device']
    """
    names = list(configs)
    # The draws are sent once; a task has the rest.
    data = cluster.put((folds.draws, folds.fold, folds.sample_weight, folds.given))
    tasks = []
    for name, config in configs.items():
        job = Job.of(config, folds, generator_for(seed, "expert", name), timeout)
        tasks.append(cluster.submit(_run, replace(job, data=None), data))
    fitted: dict[str, tuple[Expert, FitReport]] = {}
    for number, (kind, content, told) in cluster.results(tasks):
        for text in told:
            warnings.warn(text, AmfviWarning, stacklevel=2)
        if kind == "error":
            raise content
        expert, report = content
        reporter.expert_progress(names[number], 1.0, report.heldout_nll)
        fitted[names[number]] = expert.to(device), report
    return {name: fitted[name] for name in names}


def _run(job: Job, data: Any) -> tuple[str, Any, list[str]]:
    """What became of a job, and what it warned of; runs on a worker."""
    told: list[str] = []

    def tell(kind: str, content: Any) -> None:
        if kind == "warning":
            told.append(content)

    kind, content = run_job(replace(job, data=data), tell)
    return kind, content, told
