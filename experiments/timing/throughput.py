"""Log densities per second of a frozen mixture and its experts, and the memory they take.

    python -m experiments.timing.throughput RUN [--points 500000] [--device auto]

Both precisions side by side in one process; the median of five passes over draws of
the mixture. On an accelerator the largest difference from the CPU is printed too.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

import amfvi
from amfvi.device import resolve_device
from experiments.lab.tables import markdown_table

__all__ = ["main", "seconds_per_pass"]

PASSES = 5
"""Passes over all points that are timed, after one that is not."""


def seconds_per_pass(mixture: amfvi.Mixture, x: Tensor) -> float:
    """Time the log density of all points (n, d); the median of several passes."""
    times = []
    for _ in range(PASSES + 1):
        started = time.perf_counter()
        mixture.log_prob(x).cpu()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Time a saved run or model from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--points", type=int, default=500_000)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    device = resolve_device(options.device)
    on_cpu = amfvi.load_posterior(options.run)
    mixture = on_cpu.to(device)
    x = on_cpu.sample((options.points,), torch.Generator().manual_seed(0))
    print(f"{options.points} points of {mixture.dim} parameters on {device}")
    densities: dict[str, amfvi.Mixture] = {
        name: amfvi.Mixture({name: expert}, [1.0], transform=mixture.transform)
        for name, expert in mixture.experts.items()
    }
    lines = []
    for name, density in {**densities, "mixture": mixture}.items():
        rates = [len(x) / seconds_per_pass(density, p.to(device)) for p in (x, x.float())]
        lines.append([name, *(f"{rate:,.0f}" for rate in rates)])
    print("\n".join(markdown_table(["density", "float64, points/s", "float32, points/s"], lines)))
    if device.type != "cpu":
        for points in (x[:20_000], x[:20_000].float()):
            difference = (mixture.log_prob(points.to(device)).cpu() - on_cpu.log_prob(points)).abs()
            print(f"largest difference from the CPU, {points.dtype}: {difference.max():.2g}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
