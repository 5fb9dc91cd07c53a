"""A density on an interval from one on the line: what leaks beyond a bound is reflected.

The reflection method of kernel density estimation (Schuster 1985, Communications in Statistics
14; Silverman 1986, section 2.10). Nothing bends near a bound, and no mass piles up there.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from amfvi.errors import InputError, UsageError
from amfvi.experts.base import Expert
from amfvi.experts.wrapper import Wrapper, config_of

__all__ = ["MAX_REFLECTED", "Reflected", "ReflectedExpert", "clamp_inside"]

MAX_REFLECTED = 3
"""Most coordinates whose bounds reflect: images multiply by three with each."""


class ReflectedExpert(Expert):
    """q(x) = Σ q(image of x) over the images of x behind the bounds, of an expert q on the line.

    An interval has an image behind either bound, and where it is alone two more behind those;
    what lies farther out than a whole interval counts in draws, but in no density.

    Args:
        expert: over coordinates that are the user's own where they are bounded.
        low, high: bounds (d,), infinite where there are none.

    Raises:
        UsageError: no bounded interval, or more than ``MAX_REFLECTED``.

    Examples:
        >>> from amfvi.experts import GMM
        >>> x = torch.rand(500, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> expert = ReflectedExpert(GMM().fit(x), torch.zeros(1), torch.ones(1))
        >>> grid = torch.linspace(0, 1, 1001).double()[:, None]
        >>> round(float(torch.trapezoid(expert.log_prob(grid).exp(), grid[:, 0])), 3)
        1.0
        >>> draws = expert.sample(1000)
        >>> bool(((draws > 0) & (draws < 1)).all())
        True
    """

    def __init__(self, expert: Expert, low: Tensor, high: Tensor) -> None:
        super().__init__(
            Reflected(expert=config_of(expert)), expert.dim, expert.n_members, expert.given
        )
        self.expert = expert
        self.low, self.high = low.double(), high.double()
        self._columns = (self.low.isfinite() & self.high.isfinite()).nonzero().squeeze(1).tolist()
        if not 1 <= len(self._columns) <= MAX_REFLECTED:
            raise UsageError(
                f"from 1 to {MAX_REFLECTED} intervals can reflect, found {len(self._columns)}"
            )

    def tensors(self) -> dict[str, Tensor]:
        """Those of the expert on the line, and the bounds, on the CPU."""
        return {"low": self.low.cpu(), "high": self.high.cpu(), **self.expert.tensors()}

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        return type(self)(self.expert.to(device), self.low.to(device), self.high.to(device))

    def widened(self, factor: float) -> Self:
        """The same density from an expert on the line that is wider, where it has such a form."""
        wider = self.expert.widened(factor)
        return self if wider is self.expert else type(self)(wider, self.low, self.high)

    @property
    def device(self) -> torch.device:
        """Device of the fitted numbers."""
        return self.expert.device

    def _log_prob(self, x: Tensor) -> Tensor:
        images = self._images(x)
        log_q = self.expert._log_prob(torch.cat(images, dim=1))
        return log_q.unflatten(1, (len(images), -1)).logsumexp(dim=1)

    def _images(self, x: Tensor) -> list[Tensor]:
        """The points (members, n, given + d) and their images."""
        choices = []
        for i in self._columns:
            low, high = self.low[i].to(x), self.high[i].to(x)
            y = x[..., self.given + i]
            images = [y, 2 * low - y, 2 * high - y]
            if len(self._columns) == 1:
                images += [y - 2 * (high - low), y + 2 * (high - low)]
            choices.append(images)
        points = []
        for combination in itertools.product(*choices):
            columns = list(x.unbind(dim=-1))
            for i, image in zip(self._columns, combination, strict=True):
                columns[self.given + i] = image
            points.append(torch.stack(columns, dim=-1))
        return points

    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        x = self.expert._sample(n, generator, dtype, given).clone()
        for i in self._columns:
            low, high = self.low[i].to(x), self.high[i].to(x)
            width = high - low
            along = torch.remainder(x[..., i] - low, 2 * width)
            x[..., i] = clamp_inside(low + torch.minimum(along, 2 * width - along), low, high)
        return x


def clamp_inside(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Move points that rounding has put on a bound or beyond it to the nearest number inside.

    Examples:
        >>> clamp_inside(torch.tensor([-1.0, 0.5]), torch.tensor(0.0), torch.tensor(1.0)) > 0
        tensor([True, True])
    """
    return x.clamp(torch.nextafter(low, high), torch.nextafter(high, low))


@dataclass(frozen=True, kw_only=True)
class Reflected(Wrapper):
    """Settings of the expert that is reflected; they restore one, but fit none.

    Examples:
        >>> from amfvi.experts import GMM, config_from_json
        >>> config_from_json(Reflected(expert=GMM()).to_json()).expert.kind
        'gmm'
    """

    kind: ClassVar[str] = "reflected"
    refusal: ClassVar[str] = "an expert is fitted on the line first, and reflected then"

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> ReflectedExpert:
        """Rebuild the expert whose :meth:`ReflectedExpert.tensors` these are."""
        rest = dict(tensors)
        bounds = [rest.pop(name, torch.empty(0)).double() for name in ("low", "high")]
        if any(bound.shape != (dim,) for bound in bounds):
            raise InputError(f"a reflected expert has {dim} lower and {dim} upper bounds")
        return ReflectedExpert(self.expert.restore(dim, rest, given), *bounds)
