"""Log densities per second of a frozen MAF, beside the same architecture in other libraries.

    python -m experiments.timing.frozen_speed [--dim 2] [--points 200000]

Five autoregressive affine layers of two hidden layers of 32 everywhere: ours as a
fitted expert of one member; the very same weights as nflows modules, and nflows' flow
as it comes (residual blocks); zuko's and FlowJAX's own (compiled), untrained, where they
are installed. All in one process, in three rounds of several passes each, so that no
library's idle threads slow another's passes for long; the best pass of each, and ratios
to ours. Also the mixture's time beside the sum of its experts'.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

import amfvi
from amfvi.experts import MAF
from amfvi.experts.neural import NeuralFlow
from experiments.lab.peers import missing_module, nflows_flow
from experiments.lab.tables import markdown_table

__all__ = ["best_seconds", "main", "peer_calls"]

Call = Callable[[], object]

CHUNK_SIZE = 2**15
"""Points at a time for libraries that do not divide them themselves."""


def best_seconds(calls: dict[str, Call], rounds: int = 3, passes: int = 8) -> dict[str, float]:
    """Time the quickest pass of each; the first of a round may compile and does not count."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            for _ in range(passes):
                started = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def peer_calls(expert: NeuralFlow, x: Tensor) -> dict[str, Call]:
    """Make calls that evaluate the density of ``x`` (n, d) by all that is installed."""
    dim = x.shape[1]
    chunks = x.split(CHUNK_SIZE)
    same_weights = _nflows_density(expert, x.dtype)
    as_it_comes = nflows_flow(dim).to(x.dtype).eval()
    calls: dict[str, Call] = {
        "amfvi": lambda: expert.log_prob(x),
        "nflows, same weights": lambda: [same_weights(chunk) for chunk in chunks],
        "nflows, as it comes": lambda: [as_it_comes.log_prob(chunk) for chunk in chunks],
    }
    if missing_module("maf (zuko)") is None:
        import zuko

        flow = zuko.flows.MAF(dim, transforms=5, hidden_features=(32, 32)).to(x.dtype)
        calls["zuko"] = lambda: [flow().log_prob(chunk) for chunk in chunks]
    if missing_module("maf (flowjax)") is None and x.dtype == torch.float32:
        calls["flowjax"] = _flowjax_call(x)
    return calls


def _nflows_density(expert: NeuralFlow, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    flow = amfvi.to_nflows(expert).to(dtype)

    def log_prob(z: Tensor) -> Tensor:
        u, log_det = flow(z)
        return log_det - 0.5 * u.square().sum(dim=1)

    return log_prob


def _flowjax_call(x: Tensor) -> Call:
    import equinox as eqx
    import jax.numpy as jnp
    import jax.random as jr
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow

    flow = masked_autoregressive_flow(
        jr.key(0), base_dist=Normal(jnp.zeros(x.shape[1])), flow_layers=5, nn_width=32, nn_depth=2
    )
    log_prob = eqx.filter_jit(lambda points: flow.log_prob(points))
    return partial(lambda points: log_prob(points).block_until_ready(), jnp.asarray(x))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dim", type=int, default=2)
    parser.add_argument("--points", type=int, default=200_000)
    options = parser.parse_args(arguments)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, options.dim, generator=generator, dtype=torch.float64)
    draws[:, -1] += draws[:, 0].square()
    single = amfvi.fit(draws.numpy(), experts=[MAF(max_steps=100)], folds=1, seed=0)
    experts = amfvi.fit(draws.numpy(), experts=["maf", "rbig", "gmm"], seed=0).experts
    mixture = amfvi.Mixture(experts, [1 / 3] * 3)  # an expert of weight zero would be left out
    maf = single.experts["maf"]
    assert isinstance(maf, NeuralFlow)
    x = single.sample((options.points,), generator)
    with torch.no_grad():
        _print_libraries(maf, x)
        _print_mixture(mixture, x[: max(options.points // 4, 1)])


def _print_libraries(expert: NeuralFlow, x: Tensor) -> None:
    print(f"{len(x)} points of {x.shape[1]} parameters")
    lines: dict[str, list[str]] = {}
    for dtype in (torch.float64, torch.float32):
        best = best_seconds(peer_calls(expert, x.to(dtype)))
        for name, seconds in best.items():
            line = lines.setdefault(name, [] if dtype == torch.float64 else ["–", "–"])
            line += [f"{len(x) / seconds:,.0f}", f"{best['amfvi'] / seconds:.2f}"]
    header = ["", "float64, points/s", "to ours", "float32, points/s", "to ours"]
    print("\n".join(markdown_table(header, [[name, *line] for name, line in lines.items()])))


def _print_mixture(mixture: amfvi.Mixture, x: Tensor) -> None:
    calls: dict[str, Call] = {
        name: partial(expert.log_prob, x) for name, expert in mixture.experts.items()
    }
    best = best_seconds({**calls, "mixture": lambda: mixture.log_prob(x)})
    total = sum(best[name] for name in mixture.experts)
    print(f"\nthe mixture takes {best['mixture'] / total:.2f} times the sum of its experts' times")


if __name__ == "__main__":
    main()
