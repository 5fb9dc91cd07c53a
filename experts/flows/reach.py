"""How far from the center the draws of a flow may lie, by what it was fitted to.

Layers that bend a density also stretch its tails, and together they throw a draw in a million a
hundred times as far out as any point that they have seen. One such draw ruins the standard
deviation of all others, and the log density at it says next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from amfvi.experts.folds import Folds
from amfvi.experts.whitening import Whitening

__all__ = ["draw_within", "find_reach"]

REACH = 3.0
"""Distance from the center, as a multiple of the largest of the draws that a flow was fitted to.
Tails that fall exponentially have the cube of a draw's probability there."""

ROUNDS = 10
"""Times that draws beyond it are drawn again."""


def find_reach(whitening: Whitening, folds: Folds) -> Tensor:
    """Find the largest size of each whitened coordinate of a draw, (members, d).

    Examples:
        >>> import torch
        >>> draws = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]).double()
        >>> folds = Folds(draws, torch.tensor([0, 0, 1, 1]))
        >>> [round(r, 3) for r in find_reach(Whitening.fit(folds), folds).flatten().tolist()]
        [3.0, 3.0]
    """
    draws = folds.draws
    if folds.sample_weight is not None:
        draws = draws[folds.sample_weight > 0]
    whitened = whitening.forward(draws.expand(whitening.n_members, -1, -1))
    return REACH * whitened.abs().amax(dim=2)


def draw_within(
    draw: Callable[[int], Tensor], n: int, whitening: Whitening, reach: Tensor
) -> Tensor:
    """Draw (members, n, d), and draw those beyond reach again.

    Args:
        draw: from a number to as many draws of every member.
        reach: as of :func:`find_reach`.

    Examples:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> whitening = Whitening.from_factor(torch.zeros(1, 1), torch.ones(1, 1, 1))
        >>> x = draw_within(lambda n: torch.randn(1, n, 1, generator=generator), 1000, whitening,
        ...                 torch.ones(1, 1))
        >>> bool(x.abs().max() <= 1)
        True
    """
    x = draw(n)
    for _ in range(ROUNDS):
        is_within = (whitening.forward(x).abs() <= reach[..., None]).all(dim=1)
        n_beyond = (~is_within).sum(dim=1)
        if int(n_beyond.sum()) == 0:
            break
        others = draw(int(n_beyond.max()))
        x = x.clone()
        for member, count in enumerate(n_beyond.tolist()):
            x[member, ~is_within[member]] = others[member, :count]
    return x
