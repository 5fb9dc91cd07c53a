"""Pyro models as log densities, and mixtures as Pyro distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import constraints

from amfvi.density.log_density import LogDensity
from amfvi.errors import UsageError
from amfvi.interop.pyro_models import inspect_model, log_joint_of_trace
from amfvi.interop.sites import density_of_sites
from amfvi.mixture import Mixture

__all__ = ["from_pyro", "to_pyro"]


class Conditional(Protocol):
    """What has a mixture for every condition, such as an ``amfvi.ConditionalPosterior``."""

    def given(self, condition: Any) -> Mixture: ...


NEEDED = "this needs Pyro: pip install 'amfvi[pyro]'"


def from_pyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> LogDensity:
    """Make a log density of the log joint density of a Pyro model given its observations.

    Its parameters are the model's continuous latent sites, in their own space, flattened:
    ``mu`` for a number, ``theta[1]``, ``theta[2]``, … for a vector, whose dimensions are
    named by their plates. Constraints are those of the sites' distributions. Discrete latent
    sites are summed out, all of their values at once, as Pyro does with
    ``pyro.infer.config_enumerate``: independent ones must be in a ``pyro.plate``, and those
    of a chain in ``pyro.markov``. Many points are evaluated at once, by ``torch.func.vmap``.

    Args:
        model: with the observed sites given by ``obs=`` or ``pyro.condition``.
        args, kwargs: of the model.

    Raises:
        UsageError: Pyro is not installed, no continuous latent site, one that has a
            constraint that is not supported or bounds that depend on other sites, one that
            is discrete and cannot be summed out, or a plate that subsamples; the message
            names it.

    Examples:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model():
        ...     tau = pyro.sample("tau", dist.HalfNormal(2.0))
        ...     pyro.sample("y", dist.Normal(0.0, tau), obs=torch.tensor(1.5))
        >>> density = from_pyro(model)
        >>> density.names, density.constraints.lower
        (('tau',), (0.0,))
    """
    try:
        import pyro
    except ImportError as error:
        raise UsageError(NEEDED) from error
    run = inspect_model(model, args, kwargs)
    sizes = [site.variable.size for site in run.sites]
    evaluate = log_joint_of_trace(model, args, kwargs, run)

    def log_joint(x: Tensor) -> Tensor:
        values = {
            site.name: part.reshape(site.shape)
            for site, part in zip(run.sites, x.split(sizes), strict=True)
        }
        # Pyro's checks of arguments look at numbers, which vmap does not have.
        with pyro.validation_enabled(False):
            return evaluate(values)

    return density_of_sites(log_joint, run.sites)


def to_pyro(mixture: Mixture | Conditional) -> Any:
    """Make a Pyro distribution of a mixture, for ``pyro.sample`` in a model or a guide.

    A conditional mixture makes a ``pyro.distributions.ConditionalDistribution``, whose
    ``condition(c)`` is the Pyro distribution of ``mixture.given(c)``.

    Gradients pass through its ``log_prob``, so it can be a prior for HMC and NUTS. Draws
    carry none: as a guide it serves importance sampling, not training. Draws follow Pyro's
    seed, which is torch's global random state. As a prior for further data it is as right as
    the fit is where those data lie: fit with more draws if they disagree with the first ones.

    Raises:
        UsageError: Pyro is not installed, or ``mixture`` is something else.

    Examples:
        >>> import pyro
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> prior = to_pyro(Mixture({"gmm": GMM().fit(draws)}, [1.0]))
        >>> pyro.sample("theta", prior).shape
        torch.Size([2])
    """
    try:
        from pyro.distributions import ConditionalDistribution, TorchDistribution
    except ImportError as error:
        raise UsageError(NEEDED) from error
    if not isinstance(mixture, Mixture):
        if not callable(getattr(mixture, "given", None)):
            raise UsageError(f"a mixture is expected, found {type(mixture).__name__}")
        return _conditional(mixture, ConditionalDistribution)
    return _distribution(mixture, TorchDistribution)


def _distribution(mixture: Mixture, base: Any) -> Any:
    """A mixture as a distribution of Pyro's class for those."""

    class PyroMixture(base):  # type: ignore[misc,unused-ignore]
        arg_constraints: dict[str, Any] = {}  # noqa: RUF012
        has_rsample = False

        def __init__(self) -> None:
            super().__init__(torch.Size(), mixture.event_shape, validate_args=False)

        @property
        def support(self) -> constraints.Constraint:
            return mixture.support

        def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
            return mixture.sample(sample_shape)

        def log_prob(self, value: Tensor) -> Tensor:
            return _log_prob_of_mapped(mixture, value)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            if torch.Size(batch_shape) != torch.Size():
                raise UsageError("a mixture has no batch shape; draw it once, outside a plate")
            return self

    return PyroMixture()


def _conditional(model: Conditional, base: Any) -> Any:
    """A distribution for every condition, of Pyro's class for that."""

    class PyroConditionalMixture(base):  # type: ignore[misc,unused-ignore]
        def condition(self, context: Any) -> Any:
            return to_pyro(model.given(context))

    return PyroConditionalMixture()


def _log_prob_of_mapped(mixture: Mixture, value: Tensor) -> Tensor:
    """Log densities (...) of points (..., d), within ``torch.func.vmap`` too.

    vmap cannot look into a mixture, which branches on its points; it is handed the whole
    batch of them instead.
    """

    class OfBatch(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return mixture.log_prob(x)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            raise UsageError(
                "torch.func.grad cannot see into a mixture; use torch.autograd.grad of the vmap"
            )

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int, ...], x: Tensor) -> tuple[Tensor, int]:
            return _log_prob_of_mapped(mixture, x.movedim(in_dims[0], 0)), 0

    if torch.func.debug_unwrap(value, recurse=False) is value:
        return mixture.log_prob(value)
    out: Tensor = OfBatch.apply(value)  # type: ignore[no-untyped-call]
    return out
