"""Log densities a second of a frozen MAF, beside the same architecture in other libraries.

    python experiments/frozen_speed.py [--dim 2] [--points 200000]

Five autoregressive affine layers of two hidden layers of 32 everywhere: ours as a
fitted expert of one member; the very same weights as nflows modules, and nflows' flow
as it comes (residual blocks); zuko's and FlowJAX's own (compiled), fresh, where they are
installed. All in one process, in three rounds of several passes each, so that no
library's idle threads slow another's passes for long; the best pass of each, and ratios
to ours. Also the mixture's time beside the sum of its experts'.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from peers import missing, nflows_flow
from torch import Tensor

import amfvi
from amfvi.experts import MAF
from amfvi.interop.nflows import to_nflows

Call = Callable[[], object]


def best_seconds(calls: dict[str, Call], rounds: int = 3, passes: int = 8) -> dict[str, float]:
    """The quickest pass of each; the first of a round, that may compile, does not count."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            for number in range(passes + 1):
                started = time.perf_counter()
                call()
                if number:
                    best[name] = min(best[name], time.perf_counter() - started)
    return best


def nflows_density(expert: object, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    flow = to_nflows(expert).to(dtype)  # type: ignore[arg-type]

    def log_prob(z: Tensor) -> Tensor:
        u, log_det = flow(z)
        return log_det - 0.5 * u.square().sum(dim=1)

    return log_prob


def rivals(expert: object, x: Tensor) -> dict[str, Call]:
    """The densities of ``x`` (n, d) by everything that is installed."""
    dim = x.shape[1]
    pieces = x.split(2**15)
    theirs = nflows_density(expert, x.dtype)
    as_it_comes = nflows_flow(dim).to(x.dtype).eval()
    calls: dict[str, Call] = {
        "amfvi": lambda: expert.log_prob(x),  # type: ignore[attr-defined]
        "nflows, same weights": lambda: [theirs(piece) for piece in pieces],
        "nflows, as it comes": lambda: [as_it_comes.log_prob(piece) for piece in pieces],
    }
    if missing("maf (zuko)") is None:
        import zuko

        flow = zuko.flows.MAF(dim, transforms=5, hidden_features=(32, 32)).to(x.dtype)
        calls["zuko"] = lambda: [flow().log_prob(piece) for piece in pieces]
    if missing("maf (flowjax)") is None and x.dtype == torch.float32:
        import equinox as eqx
        import jax.numpy as jnp
        import jax.random as jr
        from flowjax.distributions import Normal
        from flowjax.flows import masked_autoregressive_flow

        compiled = masked_autoregressive_flow(
            jr.key(0), base_dist=Normal(jnp.zeros(dim)), flow_layers=5, nn_width=32, nn_depth=2
        )
        log_prob = eqx.filter_jit(lambda points: compiled.log_prob(points))
        calls["flowjax"] = partial(lambda p: log_prob(p).block_until_ready(), jnp.asarray(x))
    return calls


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=2)
    parser.add_argument("--points", type=int, default=200_000)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, options.dim, generator=generator, dtype=torch.float64)
    draws[:, -1] += draws[:, 0].square()
    with torch.enable_grad():
        one = amfvi.fit(draws.numpy(), experts=[MAF(max_steps=100)], folds=1, seed=0)
        experts = amfvi.fit(draws.numpy(), experts="maf,rbig,gmm", seed=0).experts
    several = amfvi.Mixture(experts, [1 / 3] * 3)  # an expert of weight zero would be passed over
    x = one.sample((options.points,), generator)
    print(f"{options.points} points of {options.dim} parameters")
    print("| | float64, points/s | to ours | float32, points/s | to ours |\n|---|---|---|---|---|")
    rows: dict[str, list[str]] = {}
    for dtype in (torch.float64, torch.float32):
        best = best_seconds(rivals(one.experts["maf"], x.to(dtype)))
        for name, seconds in best.items():
            row = rows.setdefault(name, [] if dtype == torch.float64 else ["–", "–"])
            row += [f"{len(x) / seconds:,.0f}", f"{best['amfvi'] / seconds:.2f}"]
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row)} |")
    points = x[: max(options.points // 4, 1)]
    calls: dict[str, Call] = {
        name: partial(expert.log_prob, points) for name, expert in several.experts.items()
    }
    best = best_seconds({**calls, "mixture": lambda: several.log_prob(points)})
    total = sum(best[name] for name in several.experts)
    print(f"\nthe mixture takes {best['mixture'] / total:.2f} times the sum of its experts' times")


if __name__ == "__main__":
    main()
