"""What a Pyro model consists of, and its log joint density with discrete sites summed out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from amfvi.errors import UsageError
from amfvi.interop.sites import Site, require_fixed_supports

__all__ = ["PyroModel", "inspect_model", "log_joint_of_trace"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PyroModel:
    """What one run of a model met.

    Attributes:
        sites: the continuous latent ones, in order.
        values: of these sites in that run.
        discrete: names of the discrete latent sites.
        plate_depth: how many dimensions on the left of events are plates.

    Examples:
        >>> sorted(PyroModel.__dataclass_fields__)
        ['discrete', 'plate_depth', 'sites', 'values']
    """

    sites: list[Site]
    values: dict[str, Tensor]
    discrete: list[str]
    plate_depth: int


def inspect_model(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> PyroModel:
    """Run a model to see what it consists of.

    Raises:
        UsageError: no continuous latent site, bounds that depend on other sites, a discrete
            site that cannot be summed out, or a plate that subsamples.

    Examples:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> run = inspect_model(lambda: pyro.sample("mu", dist.Normal(0.0, 1.0)), (), {})
        >>> [site.name for site in run.sites], run.discrete, run.plate_depth
        (['mu'], [], 0)
    """
    first, again = (_run(model, args, kwargs, seed) for seed in (0, 1))
    if not first.sites:
        raise UsageError("the Pyro model has no latent sites that are continuous")
    require_fixed_supports(first.sites, again.sites)
    return first


def log_joint_of_trace(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: PyroModel
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The log joint density in nats, (), as a function of values of the continuous sites.

    Raises:
        UsageError: Pyro cannot enumerate the discrete sites; the message says why.

    Examples:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Bernoulli(0.5))
        ...     pyro.sample("x", dist.Normal(z, 1.0))
        >>> log_joint = log_joint_of_trace(model, (), {}, inspect_model(model, (), {}))
        >>> x, normal = torch.tensor(0.7), torch.distributions.Normal(torch.tensor([0.0, 1.0]), 1.0)
        >>> torch.isclose(log_joint({"x": x}).exp(), normal.log_prob(x).exp().mean())
        tensor(True)
    """
    from pyro import poutine

    def trace_of(run_model: Callable[..., Any], values: Mapping[str, Tensor]) -> Any:
        conditioned = poutine.condition(run_model, data=dict(values))
        return poutine.trace(conditioned).get_trace(*args, **kwargs)

    if not run.discrete:

        def log_joint(values: Mapping[str, Tensor]) -> Tensor:
            return trace_of(model, values).log_prob_sum()

        return log_joint
    enumerated = _enumerated(model, run)
    _require_summable(lambda: trace_of(enumerated, run.values), run)

    def summed(values: Mapping[str, Tensor]) -> Tensor:
        return _sum_out(trace_of(enumerated, values))

    return summed


def _sum_out(trace: Any) -> Tensor:
    """The log joint density (), in nats, of a trace with all values of its discrete sites.

    As ``pyro.infer.mcmc.util.TraceEinsumEvaluator``, with an einsum that vmap can map.
    """
    from opt_einsum import shared_intermediates
    from pyro.ops.contract import contract_to_tensor
    from pyro.ops.rings import LogRing

    class MappableLogRing(LogRing):
        _backend = "amfvi.interop.log_einsum"

    trace.compute_log_prob()
    trace.pack_tensors()
    factors: Any = OrderedDict()
    for node in trace.nodes.values():
        if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample":
            frames = (frame for frame in node["cond_indep_stack"] if frame.vectorized)
            plates = frozenset(trace.plate_to_symbol[frame.name] for frame in frames)
            factors.setdefault(plates, []).append(node["packed"]["log_prob"])
    summed = set(trace.symbol_to_dim) - set(trace.plate_to_symbol.values())
    with shared_intermediates() as cache:
        total: Tensor = contract_to_tensor(factors, summed, ring=MappableLogRing(cache=cache))
    return total


def _enumerated(model: Callable[..., Any], run: PyroModel) -> Callable[..., Any]:
    """The model with all values of its discrete latent sites side by side."""
    from pyro import poutine
    from pyro.poutine.enum_messenger import EnumMessenger

    class EnumerateUnderVmap(EnumMessenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            """Hand over the shape of a value alone: Pyro takes it from ``.data``, which vmap bars.

            What is recorded goes to ``msg["infer"]``, which the copy shares.
            """
            value = msg["value"]
            if isinstance(value, Tensor):
                msg = {**msg, "value": torch.empty(value.shape, device="meta")}
            super()._pyro_post_sample(msg)

    def exactly(node: Any) -> dict[str, Any]:
        # Whatever the model asks for: in turn and by Monte Carlo are for other algorithms.
        summed = node["type"] == "sample" and node["name"] in run.discrete
        return {"enumerate": "parallel", "num_samples": None} if summed else {}

    configured = poutine.infer_config(model, config_fn=exactly)
    return EnumerateUnderVmap(first_available_dim=-1 - run.plate_depth)(configured)


def _require_summable(trace: Callable[[], Any], run: PyroModel) -> None:
    """Reject a model whose discrete sites Pyro cannot sum out, by its own checks.

    Args:
        trace: makes a trace with all values of the discrete sites.

    Raises:
        UsageError: it cannot.
    """
    import pyro
    from pyro.infer.mcmc.util import TraceEinsumEvaluator

    try:
        with pyro.validation_enabled(True):
            TraceEinsumEvaluator(trace(), True, run.plate_depth).log_prob(trace())
    except Exception as error:
        said = " ".join(str(error).partition("Trace Shapes")[0].split())[:200]
        raise UsageError(
            f"Pyro cannot sum out {', '.join(run.discrete)} ({type(error).__name__}: {said}); "
            "put independent sites in a pyro.plate, index with Vindex, and do not branch on values"
        ) from error


def _run(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], seed: int
) -> PyroModel:
    """What one run of the model meets."""
    import pyro
    import pyro.distributions as dist
    from pyro import poutine
    from pyro.poutine.messenger import Messenger

    class Feasible(Messenger):
        """Values for sites that cannot be drawn from, such as improper priors."""

        def _pyro_sample(self, msg: Any) -> None:
            if isinstance(msg["fn"], dist.ImproperUniform) and not msg["is_observed"]:
                msg["value"] = _feasible(msg["fn"].support, msg["fn"].shape())

    with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False), Feasible():
        torch.manual_seed(seed)
        nodes: Any = poutine.trace(model).get_trace(*args, **kwargs).nodes
    run = PyroModel(sites=[], values={}, discrete=[], plate_depth=_plate_depth(nodes))
    for name, node in nodes.items():
        kind = type(node["fn"]).__name__ if node["type"] == "sample" else ""
        if kind == "_Subsample":
            _require_all_data(name, node["fn"])
        elif kind in ("", "Unit", "Delta") or node["is_observed"]:
            continue
        elif getattr(node["fn"].support, "is_discrete", False):
            _require_enumerable(name, node["fn"])
            run.discrete.append(name)
        else:
            run.sites.append(_site(name, node))
            run.values[name] = node["value"].detach()
    return run


def _feasible(support: Any, shape: Any) -> Tensor:
    """Some value of this shape; zeros for a constraint that is refused later on."""
    try:
        bijection = biject_to(support)
    except NotImplementedError:
        return torch.zeros(shape, dtype=torch.float64)
    size: Any = bijection.inverse_shape(shape)
    value: Any = bijection(torch.randn(size, dtype=torch.float64))
    return value


def _site(name: str, node: Any) -> Site:
    shape = node["value"].shape
    batch = len(shape) - len(node["fn"].event_shape)
    plates = {
        batch + frame.dim: frame.name for frame in node["cond_indep_stack"] if frame.vectorized
    }
    return Site(name=name, support=node["fn"].support, shape=tuple(shape), plates=plates)


def _plate_depth(nodes: Any) -> int:
    """How many dimensions, counted from the right, the plates of a trace take."""
    frames = (
        frame
        for node in nodes.values()
        if node["type"] == "sample"
        for frame in node["cond_indep_stack"]
    )
    return max((-frame.dim for frame in frames if frame.vectorized), default=0)


def _require_enumerable(name: str, distribution: Any) -> None:
    if getattr(distribution, "has_enumerate_support", False):
        return
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    if getattr(distribution, "has_enumerate_support", False):
        raise UsageError(
            f"site {name!r} is discrete, and its entries cannot be summed out one by one: "
            "put it in a pyro.plate instead of to_event"
        )
    raise UsageError(
        f"site {name!r} is discrete, and {type(distribution).__name__} has too many values to sum "
        "them out; sum it out of the model by hand"
    )


def _require_all_data(plate: str, subsample: Any) -> None:
    size, taken = subsample.size, subsample.subsample_size
    if taken is not None and taken < size:
        raise UsageError(
            f"plate {plate!r} subsamples {taken} of {size}, so the log joint is random; "
            "leave out subsample_size"
        )
