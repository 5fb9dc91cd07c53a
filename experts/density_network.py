"""The network of a mixture density network, and the components that it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from amfvi.experts.flows.flow import ACTIVATIONS, HIDDEN, Parameters
from amfvi.experts.repeats import at_runs

__all__ = ["ConditionalComponents", "Network"]

MAX_LOG_PRECISION = 7.0
"""Largest log of a diagonal entry of a precision factor, in size: sds from 1e-3 to 1e3."""

MEAN_SPREAD = 0.4
"""Standard deviation of the components' means at the start: they have to differ to part."""


@dataclass(frozen=True, kw_only=True)
class ConditionalComponents:
    """Components at n conditions, for each member; K components of d coordinates.

    Attributes:
        log_weights: (members, K, n).
        means: (members, K, d, n).
        log_diagonal: of the precision factors A, (members, K, d, n).
        below: their entries below the diagonal, by rows, (members, K, d(d − 1)/2, n).

    Examples:
        >>> standard = ConditionalComponents(
        ...     log_weights=torch.zeros(1, 1, 1), means=torch.zeros(1, 1, 1, 1),
        ...     log_diagonal=torch.zeros(1, 1, 1, 1), below=torch.zeros(1, 1, 0, 1))
        >>> standard.log_prob(torch.zeros(1, 1, 1))
        tensor([[-0.9189]])
    """

    log_weights: Tensor
    means: Tensor
    log_diagonal: Tensor
    below: Tensor

    def widened(self, factor: float) -> ConditionalComponents:
        """The same components, each ``factor`` times wider."""
        return replace(
            self, log_diagonal=self.log_diagonal - math.log(factor), below=self.below / factor
        )

    def at_runs(self, run: Tensor) -> ConditionalComponents:
        """The components of n conditions, of which these are the runs (members, n)."""
        return ConditionalComponents(
            log_weights=at_runs(self.log_weights, run),
            means=at_runs(self.means, run),
            log_diagonal=at_runs(self.log_diagonal, run),
            below=at_runs(self.below, run),
        )

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density (members, n) at points (members, d, n), nats: A(y − μ) is standard."""
        d = y.shape[1]
        difference = y[:, None] - self.means
        standard = self.log_diagonal.exp() * difference
        if d > 1:
            rows, columns = torch.tril_indices(d, d, -1, device=y.device)
            standard = standard.index_add(2, rows, self.below * difference.index_select(2, columns))
        log_density = self.log_diagonal.sum(dim=2) - 0.5 * standard.square().sum(dim=2)
        joint = self.log_weights + log_density
        return joint.logsumexp(dim=1) - 0.5 * d * math.log(2 * math.pi)

    def sample(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """Draws (members, n, d) from uniform (members, n) and normal (members, n, d) numbers."""
        cumulative = self.log_weights.exp().cumsum(dim=1)
        index = (uniform[:, None] > cumulative).sum(dim=1, keepdim=True)
        index = index.clamp(max=cumulative.shape[1] - 1)[:, :, None]

        def chosen(values: Tensor) -> Tensor:
            return values.gather(1, index.expand(-1, -1, values.shape[2], -1)).squeeze(1).mT

        factor = chosen(self.log_diagonal).exp().diag_embed()
        d = noise.shape[2]
        rows, columns = torch.tril_indices(d, d, -1, device=noise.device)
        factor[..., rows, columns] = chosen(self.below)
        scaled = torch.linalg.solve_triangular(factor, noise[..., None], upper=False)
        return chosen(self.means) + scaled.squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class Network:
    """The architecture of a mixture density network.

    Attributes:
        dim: number of coordinates d.
        given: number of coordinates of the condition, the network's inputs.
        n_components: number of components K.
        width: hidden units of each layer.
        depth: hidden layers.
        activation: of the hidden units.

    Examples:
        >>> from amfvi.experts import MDN
        >>> network = MDN(components=3).build(dim=2, given=1)
        >>> parameters = network.initial(members=5, generator=torch.Generator())
        >>> network.nll(parameters, torch.zeros(5, 3, 4)).shape
        torch.Size([5, 4])
    """

    dim: int
    given: int
    n_components: int
    width: int
    depth: int
    activation: str

    def shapes(self, members: int) -> dict[str, torch.Size]:
        """Shapes of the parameters by name."""
        d, width = self.dim, self.width
        outputs = self.n_components * (1 + 2 * d + d * (d - 1) // 2)
        return {
            "input.weight": torch.Size((members, width, self.given)),
            "input.bias": torch.Size((members, width, 1)),
            HIDDEN: torch.Size((members, self.depth - 1, width, width)),
            "hidden.bias": torch.Size((members, self.depth - 1, width, 1)),
            "output.weight": torch.Size((members, outputs, width)),
            "output.bias": torch.Size((members, outputs, 1)),
        }

    def initial(self, members: int, generator: torch.Generator) -> Parameters:
        """Random hidden layers; at every condition nearly the standard normal, float32."""
        parameters = {}
        for name, shape in self.shapes(members).items():
            if name.startswith("output"):
                parameters[name] = torch.zeros(shape, dtype=torch.float32)
                continue
            fan_in = self.given if name.startswith("input") else self.width
            uniform = 2 * torch.rand(shape, generator=generator, dtype=torch.float32) - 1
            parameters[name] = uniform / math.sqrt(fan_in)
        k = self.n_components
        if k > 1:
            means, scales = (
                slice(k, k * (1 + self.dim)),
                slice(k * (1 + self.dim), k + 2 * k * self.dim),
            )
            spread = torch.randn(members, k * self.dim, 1, generator=generator, dtype=torch.float32)
            parameters["output.bias"][:, means] = MEAN_SPREAD * spread
            # Narrower components, so that all together have variance 1.
            parameters["output.bias"][:, scales] = -0.5 * math.log1p(-(MEAN_SPREAD**2))
        return parameters

    def nll(self, parameters: Parameters, z: Tensor) -> Tensor:
        """−log density (members, n) at whitened points (members, given + d, n), nats."""
        return -self.components(parameters, z[:, : self.given]).log_prob(z[:, self.given :])

    def components(self, parameters: Parameters, condition: Tensor) -> ConditionalComponents:
        """The components at whitened conditions (members, given, n)."""
        activation = ACTIVATIONS[self.activation]
        h = torch.baddbmm(parameters["input.bias"], parameters["input.weight"], condition)
        h = activation(h)
        deeper = zip(parameters[HIDDEN].unbind(1), parameters["hidden.bias"].unbind(1), strict=True)
        for w, b in deeper:
            h = activation(torch.baddbmm(b, w, h))
        raw = torch.baddbmm(parameters["output.bias"], parameters["output.weight"], h)
        k, d = self.n_components, self.dim
        sizes = [k, k * d, k * d, k * d * (d - 1) // 2]
        logits, means, log_diagonal, below = raw.split(sizes, dim=1)
        return ConditionalComponents(
            log_weights=logits.log_softmax(dim=1),
            means=means.unflatten(1, (k, d)),
            log_diagonal=MAX_LOG_PRECISION
            * torch.tanh(log_diagonal.unflatten(1, (k, d)) / MAX_LOG_PRECISION),
            below=below.unflatten(1, (k, d * (d - 1) // 2)),
        )
