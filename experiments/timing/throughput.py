"""Log densities a second of a frozen mixture and its experts, and the memory they take.

    python experiments/throughput.py RUN [--points 500000] [--device auto]

Both precisions side by side in one process; the median of five passes over draws of
the mixture. On an accelerator the largest difference from the CPU is printed too.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch
from torch import Tensor

import amfvi
from amfvi.two_stage.fit import resolve_device


def seconds(mixture: amfvi.Mixture, x: Tensor) -> float:
    """Median time of a pass over all points; the first pass is not counted."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        mixture.log_prob(x).cpu()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--points", type=int, default=500_000)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    on_cpu = amfvi.load(options.run)
    mixture = amfvi.load(options.run, device=device)
    x = on_cpu.sample((options.points,), torch.Generator().manual_seed(0))
    print(f"{options.points} points of {mixture.dim} parameters on {device}")
    print("| density | float64, points/s | float32, points/s |")
    print("|---|---|---|")
    alone = {
        name: amfvi.Mixture({name: expert}, [1.0], support=mixture.bounds)
        for name, expert in mixture.experts.items()
    }
    for name, density in {**alone, "mixture": mixture}.items():
        rates = [len(x) / seconds(density, p.to(device)) for p in (x, x.float())]
        print(f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} |")
    if device.type != "cpu":
        for points in (x[:20_000], x[:20_000].float()):
            difference = (mixture.log_prob(points.to(device)).cpu() - on_cpu.log_prob(points)).abs()
            print(f"largest difference from the CPU, {points.dtype}: {difference.max():.2g}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
