"""The map of one expert between a standard normal and a posterior's parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from amfvi.errors import UsageError
from amfvi.experts import RBIG
from amfvi.experts.flows.bijection import BijectiveExpert
from amfvi.experts.flows.gaussianization import Gaussianization
from amfvi.experts.whitening import Whitening
from amfvi.mixture import Mixture

__all__ = ["Transport", "choose_flow"]

MIN_WEIGHT = 0.05
"""Weight of an expert from which its map is used."""

N_DRAWS = 2_000
"""Draws of the mixture that a linear map is fitted to, where no expert has a map."""


def choose_flow(mixture: Mixture, y: Tensor) -> BijectiveExpert:
    """The first member of the bijective expert of the largest weight, else a linear map of draws.

    Args:
        y: draws (n, m) in unconstrained space.

    Examples:
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> flow = choose_flow(Mixture({"gmm": GMM().fit(draws)}, [1.0]), draws)
        >>> abs(float(flow.forward(draws[None])[0].std()) - 1) < 0.01
        True
    """
    flows = [
        (weight, expert)
        for expert, weight in zip(mixture.experts.values(), mixture.weights.tolist(), strict=True)
        if isinstance(expert, BijectiveExpert) and weight > MIN_WEIGHT
    ]
    if flows:
        return max(flows, key=lambda pair: pair[0])[1].of_first_member()
    return Gaussianization(RBIG(), Whitening.fit_pooled(y), [])


class Transport(Transform):
    """A differentiable bijection from normal scores (…, m) to parameters (…, d).

    It is the map of the first member of one expert, followed by the change of variables to
    the constraints. A posterior pulled back through it is nearly a standard normal, in which
    Hamiltonian chains take long steps (NeuTra: Hoffman et al. 2019, arXiv:1903.03704).
    Any bijection leaves such chains exact, however good the fit.

    Args:
        mixture: whose most important bijective expert it is; a linear map if it has none.
        expert: the name of another.

    Raises:
        UsageError: no such expert, or one that is not a bijection.

    Examples:
        >>> from amfvi.experts import MAF
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> maf = MAF(layers=1, max_steps=25).fit(draws, folds=1)
        >>> transport = Transport(Mixture({"maf": maf}, [1.0]))
        >>> u = transport.inv(draws[:3])
        >>> torch.allclose(transport(u), draws[:3])
        True
    """

    bijective = True
    domain = constraints.real_vector

    def __init__(self, mixture: Mixture, expert: str | None = None) -> None:
        super().__init__()
        self._transform = mixture.transform
        self.codomain = mixture.support
        if expert is None:
            draws = mixture.sample((N_DRAWS,), torch.Generator().manual_seed(0))
            self._flow = choose_flow(mixture, self._transform.to_unconstrained(draws)[0])
            return
        chosen = mixture.experts.get(expert)
        if not isinstance(chosen, BijectiveExpert):
            have = [n for n, e in mixture.experts.items() if isinstance(e, BijectiveExpert)]
            raise UsageError(
                f"no expert {expert!r} with a map to a standard normal; there "
                f"{'are ' + ', '.join(have) if have else 'is none'}"
            )
        self._flow = chosen.of_first_member()

    def _call(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        return self._forward(flat)[0].reshape(*x.shape[:-1], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        flat = y.reshape(-1, y.shape[-1])
        unconstrained = self._transform.to_unconstrained(flat)[0]
        u = self._flow.forward(unconstrained.to(self._flow.device)[None])[0][0]
        return u.to(y.device).reshape(*y.shape[:-1], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log |det dy/dx|`` (…) in nats at normal scores ``x``."""
        return self._forward(x.reshape(-1, x.shape[-1]))[1].reshape(x.shape[:-1])

    def forward_shape(self, shape: Any) -> torch.Size:
        """The shape of parameters for a shape of normal scores."""
        return torch.Size([*shape[:-1], self._transform.constraints.dim])

    def inverse_shape(self, shape: Any) -> torch.Size:
        """The shape of normal scores for a shape of parameters."""
        return torch.Size([*shape[:-1], self._transform.constraints.unconstrained_dim])

    def _forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (n, d) of normal scores (n, m), and log-determinants (n,)."""
        mapped, log_dets = self._flow.inverse(u.to(self._flow.device)[None])
        y, log_det = mapped[0].to(u.device), log_dets[0].to(u.device)
        x, of_transform = self._transform.from_unconstrained_with_log_det(y)
        return x, log_det + of_transform
