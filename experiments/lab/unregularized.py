"""Flows trained as the paper trains them: full batches, a fixed number of steps, no early stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from amfvi.experts import Folds
from amfvi.experts.neural import NeuralFlow, NeuralFlowConfig
from amfvi.experts.whitening import Whitening

__all__ = ["train_snapshots"]


def train_snapshots(
    config: NeuralFlowConfig,
    folds: Folds,
    at: Sequence[int],
    *,
    learning_rate: float,
    generator: torch.Generator,
) -> Iterator[tuple[int, NeuralFlow]]:
    """Train a flow by Adam on all training draws; yield it after each number of steps in ``at``.

    Every member trains on its own rows of ``folds`` alone. Ends early where a loss is no
    longer finite.
    """
    whitening = Whitening.fit(folds)
    flow = config.build(folds.dim)
    whitened = whitening.forward(folds.draws.expand(folds.n_members, -1, -1)).float()
    rows = folds.train_rows
    fewest = min(map(len, rows))
    index = torch.stack([r[:fewest] for r in rows])[:, None].expand(-1, folds.dim, -1)
    points = whitened.gather(2, index)
    leaves = {
        name: value.clone().requires_grad_()
        for name, value in flow.initial(folds.n_members, generator).items()
    }
    masks = {name: flow.masks[name] for name in leaves}
    adam = torch.optim.Adam(leaves.values(), lr=learning_rate)
    for step in range(1, max(at) + 1):
        loss = flow.nll(leaves, points).mean(dim=1).sum()
        if not bool(loss.isfinite()):
            return
        adam.zero_grad()
        loss.backward()
        for name, leaf in leaves.items():
            assert leaf.grad is not None  # set by backward
            leaf.grad *= masks[name]
        adam.step()
        if step in at:
            learned = {name: leaf.detach().clone() for name, leaf in leaves.items()}
            yield step, NeuralFlow(config, whitening, learned)
