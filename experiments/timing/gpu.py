"""What a GPU gains: training steps, log densities and whole fits, beside the CPU.

    python -m experiments.timing.gpu [steps] [densities] [fits] [--budget 500] [--out ROWS.jsonl]

Steps: milliseconds of one step of all members, checks included, on the CPU, on the GPU
launched anew each time ("eager") and on the GPU replayed from a captured graph. Densities:
points a second, and the share of the GPU's own rate of matrix products in the precision of
the points that their arithmetic comes to. Fits: seconds of ``amfvi.fit`` to draws by the
default experts and exact KL. All in one process on one machine; rows are printed as they
are made.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import amfvi
from amfvi.experts import DEFAULT, ExpertConfig, RealNVP, resolve
from amfvi.experts.folds import Folds
from amfvi.experts.training import loop
from amfvi.experts.training.optimizer import EnsembleOptimizer
from amfvi.randomness import generator_for
from amfvi.targets import CANONICAL, ExactTarget
from experiments.lab.tables import Row, markdown_table
from experiments.lab.targets import SCALABLE

__all__ = ["densities", "fits", "main", "steps"]

FLOWS = ("maf", RealNVP(base_components=1), "nsf")
"""Experts that are trained by steps, once each."""

DIMENSIONS = (2, 10, 100)
"""Numbers of parameters."""

N_STEPS = (100, 1100)
"""Steps of a short and of a long training; the difference is timed."""

N_POINTS = 500_000
"""Points whose density is timed."""

PASSES = 5
"""Passes that are timed, after one that is not; their median counts."""

FITS = (
    (2, 10_000), (2, 100_000), (10, 10_000), (10, 100_000), (100, 10_000),
    (2, 1_000_000), (10, 1_000_000), (100, 100_000), (2, 10_000_000),
)  # fmt: skip
"""Dimensions and numbers of draws of whole fits, the quickest first."""


DEVICES = ("cuda", "cpu")
"""Where whole fits are made."""


class _EagerOptimizer(EnsembleOptimizer):
    """Launches each step's kernels anew."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._is_capturable = False


def steps() -> Iterator[Row]:
    """Time a training step of each flow in several dimensions."""
    for dim in DIMENSIONS:
        draws = _target(dim).sample(10_000, generator_for(0, "draws"))
        folds = Folds(draws, torch.arange(len(draws)) % 5)
        for name, config in resolve(FLOWS).items():
            row: Row = {"expert": name, "dim": dim}
            row["CPU, ms"] = _step_seconds(config, folds, "cpu") * 1000
            with patch.object(loop, "EnsembleOptimizer", _EagerOptimizer):
                row["GPU eager, ms"] = _step_seconds(config, folds, "cuda") * 1000
            row["GPU captured, ms"] = _step_seconds(config, folds, "cuda") * 1000
            yield row


def _step_seconds(config: ExpertConfig, folds: Folds, device: str) -> float:
    """Time a step as the difference between a long and a short training."""
    times = []
    for max_steps in N_STEPS:
        endless = replace(config, max_steps=max_steps, patience=10**6, cooldown=0.0)  # type: ignore[call-arg]
        started = time.perf_counter()
        endless.fit_folds(folds, generator=torch.Generator().manual_seed(0), device=device)
        times.append(time.perf_counter() - started)
    return (times[1] - times[0]) / (N_STEPS[1] - N_STEPS[0])


def densities() -> Iterator[Row]:
    """Time the log density of each expert in several dimensions, in both precisions."""
    peaks = {dtype: _matmul_rate(dtype) for dtype in (torch.float32, torch.float64)}
    for dtype, rate in peaks.items():
        yield {"expert": "matrix product", "precision": str(dtype), "GPU, TFLOP/s": rate / 1e12}
    for dim in DIMENSIONS:
        target = _target(dim)
        fitted = amfvi.fit(
            target.sample(5000, generator_for(0, "draws")), experts=(*DEFAULT, "nsf", "gmm"),
            device="cuda", seed=0,
        )  # fmt: skip
        x = target.sample(N_POINTS, generator_for(0, "points"))
        for name, expert in fitted.experts.items():
            alone = amfvi.Mixture({name: expert}, [1.0], transform=fitted.transform)
            on_cpu = alone.to("cpu")
            for dtype, peak in peaks.items():
                points = x.to("cuda", dtype)
                with FlopCounterMode(display=False) as counter:
                    alone.log_prob(points[:1000])
                flops = counter.get_total_flops() / 1000
                seconds = _median_seconds(partial(alone.log_prob, points))
                few = x[: N_POINTS // 10].to(dtype)  # the rates of CPUs are lower
                there = _median_seconds(partial(on_cpu.log_prob, few)) * 10
                same = few[:2000]
                difference = alone.log_prob(same.cuda()).cpu() - on_cpu.log_prob(same)
                yield {
                    "expert": name, "dim": dim, "precision": str(dtype),
                    "GPU, points/s": N_POINTS / seconds, "CPU, points/s": N_POINTS / there,
                    "GPU, TFLOP/s": flops * N_POINTS / seconds / 1e12,
                    "share of matrix rate": flops * N_POINTS / seconds / peak,
                    "GPU memory, GiB": torch.cuda.max_memory_allocated() / 2**30,
                    "largest difference": float(difference.abs().max()),
                }  # fmt: skip
                torch.cuda.reset_peak_memory_stats()


def _matmul_rate(dtype: torch.dtype, size: int = 8192) -> float:
    """Measure operations per second of a large matrix product."""
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * size**3 / _median_seconds(lambda: a @ b)


def _median_seconds(call: Callable[[], Tensor]) -> float:
    times = []
    for _ in range(PASSES + 1):
        _synchronize()
        started = time.perf_counter()
        call()
        _synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fits() -> Iterator[Row]:
    """Time whole fits of the default experts on the CPU and on the GPU."""
    amfvi.fit("banana", n_draws=500, device="cuda", seed=0)  # loads the libraries
    for dim, n in FITS:
        target = _target(dim)
        draws = target.sample(n, generator_for(0, "draws"))
        x = target.sample(20_000, generator_for(0, "points"))
        for device in DEVICES:
            torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            posterior = amfvi.fit(draws, device=device, seed=0)
            seconds = time.perf_counter() - started
            kl = float((target.log_prob(x) - posterior.to("cpu").log_prob(x)).mean())
            assert posterior.summary is not None  # it is not a loaded one
            reports = posterior.summary.reports
            yield {
                "dim": dim, "n": n, "device": device, "seconds": seconds, "KL": kl,
                "GPU memory, GiB": torch.cuda.max_memory_allocated() / 2**30,
                "seconds of experts": {name: r.seconds for name, r in reports.items()},
                "seconds of stages": dict(posterior.summary.seconds),
            }  # fmt: skip


def _target(dim: int) -> ExactTarget:
    """A banana, as in the study of dimensions from three up."""
    return CANONICAL["banana"]() if dim == 2 else SCALABLE["long_banana"](dim)


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "steps": steps, "densities": densities, "fits": fits,
}  # fmt: skip
"""What can be measured."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds; then no new row")
    parser.add_argument("--out", type=Path, help="file to which rows are added as JSON lines")
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)} (parts: {', '.join(PARTS)})")
    if not torch.cuda.is_available():
        parser.error("no CUDA device found")
    print(f"{torch.cuda.get_device_name()}, {torch.get_num_threads()} CPU threads, "
          f"torch {torch.__version__}")  # fmt: skip
    ends = time.monotonic() + options.budget
    for part in options.parts or PARTS:
        rows = []
        for row in PARTS[part]():
            rows.append(row)
            print(part, json.dumps(row), flush=True)
            if options.out is not None:
                with options.out.open("a") as file:
                    file.write(json.dumps({"part": part, **row}) + "\n")
            if time.monotonic() > ends:
                break
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[_in_words(row.get(name, "")) for name in names] for row in rows]
        print("\n".join(markdown_table(names, cells)), flush=True)


def _in_words(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
