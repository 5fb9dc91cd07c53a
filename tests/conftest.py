"""One table of experts that every invariant runs through, and what the tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# Small networks gain nothing from a second thread, and the tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# JAX computes in double precision, as its users are told to let it, from the start.
os.environ.setdefault("JAX_ENABLE_X64", "1")
# Two threads of XLA hang in batched decompositions; see experiments/lab/posteriordb_peers.py.
os.environ.setdefault("NPROC", "16")

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import amfvi
from amfvi.density.log_density import LogDensity
from amfvi.experts import (
    GMM,
    MAF,
    NSF,
    RBIG,
    TMM,
    Expert,
    ExpertConfig,
    FitReport,
    Folds,
    LogisticMAF,
    RealNVP,
)

REPOSITORY = Path(__file__).parents[1]

# Every family, small enough to fit in about a second. A new expert is one line here.
SMALL: dict[str, ExpertConfig] = {
    "maf": MAF(layers=3, hidden_features=16, max_steps=300),
    # A mixture as its base is no bijection to a normal: test_mixture_base.py has those.
    "realnvp": RealNVP(layers=4, hidden_features=16, max_steps=300, base_components=1),
    "rbig": RBIG(max_layers=60, patience=10),
    "nsf": NSF(layers=2, hidden_features=16, max_steps=300),
    "logistic_maf": LogisticMAF(layers=2, hidden_features=16, components=4, max_steps=300),
    "gmm": GMM(max_components=6),
    "tmm": TMM(max_components=4),
}
BIJECTIVE = ("maf", "realnvp", "rbig", "nsf", "logistic_maf")


def curved_draws(dim: int, n: int, seed: int) -> Tensor:
    """Draws bent along parabolas, skewed in the first coordinate; not Gaussian for any d."""
    generator = torch.Generator().manual_seed(1000 * dim + seed)
    noise = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    columns = [noise[:, 0] + 0.15 * noise[:, 0].square()]
    for j in range(1, dim):
        columns.append(0.6 * noise[:, j] + 0.5 * columns[j - 1] - 0.2 * columns[j - 1].square())
        columns[j] = columns[j].clamp(-8, 8)
    return torch.stack(columns, dim=1)


def in_folds(draws: Tensor, members: int) -> Folds:
    """Every fifth draw held out, or every draw by one of several members."""
    fold = torch.arange(len(draws)) % (members if members > 1 else 5)
    return Folds(draws, fold if members > 1 else torch.where(fold == 4, 0, -1))


@cache
def _fitted(kind: str, dim: int, seed: int, members: int) -> tuple[Expert, FitReport]:
    generator = torch.Generator().manual_seed(seed)
    return SMALL[kind].fit_folds(
        in_folds(curved_draws(dim, 1500, seed), members), generator=generator
    )


def density_of_target(name: str) -> LogDensity:
    """The unnormalized density of a target, as a user would give it."""
    target = amfvi.targets.get(name)
    return LogDensity(
        target.log_density, target.dim, names=target.names, constraints=target.constraints,
        box=target.box,
    )  # fmt: skip


@cache
def _fitted_density(name: str, seed: int, options: tuple[tuple[str, Any], ...]) -> amfvi.Posterior:
    return amfvi.fit(density_of_target(name), seed=seed, **dict(options))


@pytest.fixture
def target_density() -> Callable[[str], LogDensity]:
    """target_density(name): the unnormalized density of a target."""
    return density_of_target


@pytest.fixture
def fitted_density() -> Callable[..., amfvi.Posterior]:
    """fitted_density(name, seed=0, **options): a fit to a target's density, made once.

    Experts are given as a tuple.
    """
    return lambda name, seed=0, **options: _fitted_density(
        name, seed, tuple(sorted(options.items()))
    )


@pytest.fixture(params=SMALL)
def kind(request: pytest.FixtureRequest) -> str:
    """Each family of experts in turn."""
    return str(request.param)


@pytest.fixture(params=BIJECTIVE)
def bijective(request: pytest.FixtureRequest) -> str:
    """Each family that maps draws to a normal, in turn."""
    return str(request.param)


@pytest.fixture
def folded() -> Callable[[Tensor, int], Folds]:
    """folded(draws, members): every fifth draw held out, or all by one of the members."""
    return in_folds


@pytest.fixture
def fitted() -> Callable[..., tuple[Expert, FitReport]]:
    """fitted(kind, dim, seed=0, members=2): a small expert with its report, fitted once."""
    return lambda kind, dim, seed=0, members=2: _fitted(kind, dim, seed, members)


@pytest.fixture
def curved() -> Callable[[int, int, int], Tensor]:
    """curved(dim, n, seed): the draws that ``fitted`` experts are fitted to."""
    return curved_draws


@pytest.fixture
def small() -> dict[str, ExpertConfig]:
    """The table of small expert configs."""
    return dict(SMALL)


@pytest.fixture
def goodness_of_fit() -> Callable[..., float]:
    """goodness_of_fit(draws, log_prob, view): χ² p-value of 2-D draws against a density.

    Over 24 × 24 cells of the view, those with ten or more expected draws, and all
    the rest as one; a cell's probability by midpoint quadrature on 8 × 8 points.
    """

    def p_value(
        draws: Tensor,
        log_prob: Callable[[Tensor], Tensor],
        view: tuple[tuple[float, float], tuple[float, float]],
        cells: int = 24,
        fine: int = 8,
    ) -> float:
        edges = [torch.linspace(low, high, cells + 1, dtype=torch.float64) for low, high in view]
        steps = [(edge[1] - edge[0]) / fine for edge in edges]
        axes = [
            edge[0] + step * (torch.arange(cells * fine, dtype=torch.float64) + 0.5)
            for edge, step in zip(edges, steps, strict=True)
        ]
        mass = log_prob(torch.cartesian_prod(*axes)).exp() * steps[0] * steps[1]
        expected = mass.reshape(cells, fine, cells, fine).sum(dim=(1, 3)).flatten().numpy()
        counts = torch.histogramdd(draws, bins=edges)[0].flatten().numpy()
        likely = expected * len(draws) >= 10
        expected = np.append(expected[likely], 1 - expected[likely].sum()) * len(draws)
        observed = np.append(counts[likely], len(draws) - counts[likely].sum())
        used = expected > 1
        expected = expected[used] * (observed[used].sum() / expected[used].sum())
        return float(stats.chisquare(observed[used], expected).pvalue)

    return p_value


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Floors are cached for the session, away from the user's own cache."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one session has a folder per process
        base = base.parent
    (base / "cache").mkdir(exist_ok=True)  # torch warns of one that it has to make itself
    monkeypatch.setenv("XDG_CACHE_HOME", str(base / "cache"))


@pytest.fixture
def global_state_untouched():
    """Fail if the test changes torch's or numpy's global random state."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    yield
    assert torch.equal(torch_state, torch.get_rng_state())
    after = np.random.get_state()
    assert numpy_state[2] == after[2]
    assert np.array_equal(numpy_state[1], after[1])


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """command(*arguments): the installed command line, in a process and folder of its own."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "amfvi", *map(str, arguments)],
            cwd=options.pop("cwd", tmp_path),
            env={**os.environ, **options.pop("env", {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """cli(*arguments): exit code, stdout and stderr of the command line in this process."""
    from amfvi.__main__ import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["amfvi", *map(str, arguments)])
        capsys.readouterr()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with pytest.raises(SystemExit) as stopped:
                main()
        finally:  # those of the command line are no business of other tests
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run
