"""What does freezing the experts cost, or save?"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from amfvi.experts import MAF, RBIG, ExpertConfig, RealNVP
from amfvi.experts.flows.flow import Parameters
from amfvi.experts.matrix import log_densities, optimism_corrected_log_densities
from amfvi.experts.neural import NeuralFlow, NeuralFlowConfig
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.targets import CANONICAL
from amfvi.two_stage.fit import fit_split
from amfvi.two_stage.options import FitOptions
from amfvi.two_stage.split import Split, split_target
from amfvi.two_stage.weights import fit_weights
from experiments.lab.pictures import dots_by_target
from experiments.lab.pool import draw_test_points
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, format_mean, markdown_table, pivot, values
from experiments.lab.targets import exact_target

BATCH_SIZE = 256
"""Draws per step of joint training."""

LEARNING_RATE = 1e-3
"""Of joint training."""

CHECK_EVERY = 25
"""Steps between looks at the held-out draws."""

FLOWS = ("maf", "realnvp")
"""Experts that have a gradient."""

ARMS = {
    "two-stage": "single experts, fitted alone and frozen: the time T",
    "half, then joint": "the same with half the steps, then joint training for what is left of T",
    "joint": "flows from the identity, trained jointly for T",
    "two-stage + joint": "two-stage, then joint training for T more",
    "ensembles of two": "two-stage with two members per expert: about 2T",
}
"""What is compared, with what it is."""


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(list(CANONICAL), ["banana"], ["banana"]),
        n=size.choose(10_000, 1_000, 200),
        steps=size.choose(1_300, 200, 50),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    target, seed, steps = exact_target(cell["target"]), cell["seed"], cell["steps"]
    split = split_target(target, cell["n"], seed=seed, n_test=0, folds=1)
    pairs = split_target(target, cell["n"], seed=seed, n_test=0, folds=2)
    x = draw_test_points(target, cell["n_test"], seed)
    log_p = target.log_prob(x)

    def kl(mixture: Mixture) -> float:
        return float((log_p - mixture.log_prob(x)).mean())

    full, seconds = _fit_two_stages(split, steps, seed)
    short, seconds_short = _fit_two_stages(split, max(steps // 2, 25), seed)
    ensembles, seconds_ensembles = _fit_two_stages(pairs, steps, seed)
    rows: list[Row] = [{"arm": "two-stage", "kl": kl(full), "seconds": seconds}]
    for arm, start, limit, seconds_before in (
        ("half, then joint", short, seconds - seconds_short, seconds_short),
        ("joint", _reset_flows(full), seconds, 0.0),
        ("two-stage + joint", full, seconds, seconds),
    ):
        started = time.monotonic()
        generator = generator_for(seed, "joint", arm)
        mixture = _train_jointly(start, split, max(limit, 0.1), generator)
        seconds_joint = time.monotonic() - started
        rows.append({"arm": arm, "kl": kl(mixture), "seconds": seconds_before + seconds_joint})
    rows.append({"arm": "ensembles of two", "kl": kl(ensembles), "seconds": seconds_ensembles})
    return rows


def _fit_two_stages(split: Split, max_steps: int, seed: int) -> tuple[Mixture, float]:
    """Fit the trio with at most so many steps per flow; also the seconds."""
    experts: dict[str, str | ExpertConfig] = {
        "maf": MAF(max_steps=max_steps),
        "realnvp": RealNVP(max_steps=max_steps, base_components=1),
        "rbig": RBIG(),
    }  # fmt: skip
    started = time.monotonic()
    mixture, _ = fit_split(split, FitOptions(experts=experts, seed=seed, device="cpu"))
    return mixture, time.monotonic() - started


def _reset_flows(mixture: Mixture) -> Mixture:
    """Copy a mixture with flows that are the identity, and equal weights."""
    experts = dict(mixture.experts)
    for name, flow in _flows(mixture).items():
        initial = flow.flow.initial(1, torch.Generator().manual_seed(0))
        experts[name] = _with_parameters(flow, initial)
    return Mixture(experts, [1 / len(experts)] * len(experts))


def _flows(mixture: Mixture) -> dict[str, NeuralFlow]:
    """The experts that have a gradient."""
    flows = {}
    for name in FLOWS:
        expert = mixture.experts[name]
        assert isinstance(expert, NeuralFlow)
        flows[name] = expert
    return flows


def _with_parameters(flow: NeuralFlow, parameters: Parameters) -> NeuralFlow:
    """Copy a flow with other parameters."""
    assert isinstance(flow.config, NeuralFlowConfig)
    return NeuralFlow(flow.config, flow.whitening, parameters)


Leaves = dict[str, Parameters]
"""Parameters of the flows by the name of the flow."""


class _JointLikelihood:
    """Negative log-likelihood of a mixture as a function of its flows and its weights.

    Other experts stay as they are. ``leaves`` and ``logits`` are the trained parameters.
    """

    def __init__(self, mixture: Mixture, draws: Tensor) -> None:
        self.flows = _flows(mixture)
        self.leaves: Leaves = {
            name: {k: v.detach().clone().requires_grad_() for k, v in flow.parameters.items()}
            for name, flow in self.flows.items()
        }
        self._whitened = {
            name: flow.whitening.forward(draws[None]).float() for name, flow in self.flows.items()
        }
        fixed = {name: e for name, e in mixture.experts.items() if name not in self.flows}
        self._fixed = log_densities(fixed, draws).float()
        names = list(mixture.experts)
        order = [names.index(name) for name in (*self.flows, *fixed)]
        log_weights = torch.as_tensor(mixture.weights).clamp(min=1e-3).log().float()
        self.logits = log_weights[order].clone().requires_grad_()

    def __call__(self, rows: Tensor) -> Tensor:
        """Mean over some of the draws, nats."""
        columns = []
        for name, flow in self.flows.items():
            nll = flow.flow.nll(self.leaves[name], self._whitened[name][:, :, rows])[0]
            columns.append(float(flow.whitening.log_det[0]) - nll)
        log_q = torch.cat([torch.stack(columns, dim=1), self._fixed[rows]], dim=1)
        return -torch.logsumexp(log_q + self.logits.log_softmax(dim=0), dim=1).mean()

    def parameters(self) -> list[Tensor]:
        return [leaf for leaves in self.leaves.values() for leaf in leaves.values()] + [self.logits]

    def mask_gradients(self) -> None:
        """Set the gradient of weights that the flows do not have to zero."""
        for name, flow in self.flows.items():
            masks = flow.flow.masks
            for key, leaf in self.leaves[name].items():
                assert leaf.grad is not None  # set by backward
                leaf.grad *= masks[key]

    def copy_leaves(self) -> Leaves:
        return {
            name: {key: leaf.detach().clone() for key, leaf in leaves.items()}
            for name, leaves in self.leaves.items()
        }


def _train_jointly(
    mixture: Mixture, split: Split, seconds: float, generator: torch.Generator
) -> Mixture:
    """Train flows and weights together by gradient of the mixture's likelihood.

    The best state on held-out draws is kept, and weighted by the default rule.
    """
    folds = split.folds
    nll = _JointLikelihood(mixture, folds.draws)
    train, heldout = folds.train_rows[0], folds.heldout_rows[0]
    adam = torch.optim.Adam(nll.parameters(), lr=LEARNING_RATE)
    best, state = torch.inf, nll.copy_leaves()
    ends_at = time.monotonic() + seconds
    for step in itertools.count():
        if step % CHECK_EVERY == 0:
            with torch.no_grad():
                score = float(nll(heldout))
            if score < best:
                best, state = score, nll.copy_leaves()
            if time.monotonic() > ends_at:
                break
        rows = train[torch.randint(len(train), (BATCH_SIZE,), generator=generator)]
        adam.zero_grad()
        nll(rows).backward()
        nll.mask_gradients()
        adam.step()
    experts = dict(mixture.experts)
    for name, flow in nll.flows.items():
        experts[name] = _with_parameters(flow, state[name])
    weights = fit_weights(optimism_corrected_log_densities(experts, folds)).weights
    return Mixture(experts, weights)


def report(rows: list[Row]) -> Report:
    body = markdown_table(["arm", "what it is"], ARMS.items())
    body += ["", "Exact KL(p‖q), nats:", "", *pivot(rows, "target", "arm", "kl"), "",
             "Seconds, everything included:", "",
             *pivot(rows, "target", "arm", "seconds", ".1f"), ""]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _ratio(rows: list[Row], arm: str, key: str = "kl") -> np.ndarray:
    """Ratio to that of two frozen stages, per target and seed."""
    ratio: np.ndarray = values(rows, key, arm=arm) / values(rows, key, arm="two-stage")
    return ratio


def _brief(rows: list[Row]) -> str:
    same = _ratio(rows, "half, then joint").mean()
    more = _ratio(rows, "two-stage + joint").mean()
    pair = _ratio(rows, "ensembles of two").mean()
    return (
        f"In the same time, joint training ends at {same:.2f} times the KL of frozen experts; in "
        f"twice the time at {more:.2f} times, where frozen ensembles of two reach {pair:.2f}."
    )


def _answer(rows: list[Row]) -> str:
    def describe(arm: str) -> str:
        seconds = _ratio(rows, arm, "seconds").mean()
        return f"{arm} {format_mean(_ratio(rows, arm), '.2f')} (in {seconds:.2f} times the time)"

    return (
        "KL as a multiple of that of two frozen stages with single experts, mean over targets and "
        "seeds: " + "; ".join(describe(arm) for arm in list(ARMS)[1:]) + "."
    )


def _figure(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    ax = figure.subplots()
    dots_by_target(ax, rows, "arm", list(ARMS))
    ax.legend(fontsize=8, frameon=False, ncols=3)
    return figure


STUDY = Study(
    name="joint",
    question="What does freezing the experts cost, or save?",
    method=(
        "10,000 draws, single experts (no ensembles), a fifth held out for stopping and weights. "
        "Joint training is Adam (rate 0.001, batches of 256) on the mixture's likelihood, over "
        "both flows and the weights; the best held-out state is kept and weighted by the default "
        "rule. RBIG has no gradient and stays as it is. Arms end by the clock, so that figures "
        "move a little from machine to machine. KL on 50,000 fresh exact draws."
    ),
    cells=cells,
    run=run,
    report=report,
)
