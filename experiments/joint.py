"""What does freezing the experts cost, or save?

python experiments/joint.py [--seeds 5] [--quick]
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from amfvi.experts import MAF, RBIG, RealNVP
from amfvi.experts.neural import NeuralFlow
from amfvi.targets import CANONICAL, get
from matplotlib.figure import Figure
from pictures import dots_by_target
from study import Report, Row, Size, Study, command, entry, pivot, values
from torch import Tensor

from amfvi.mixture import Mixture, cross_validated_log_densities, log_densities
from amfvi.randomness import stream
from amfvi.split import Split, split_target
from amfvi.stage_two import fit_weights
from amfvi.two_stages import fit_split

BATCH = 256
RATE = 1e-3
CHECK_EVERY = 25
FLOWS = ("maf", "realnvp")
ARMS = {
    "two-stage": "single experts, fitted alone and frozen: the time T",
    "half, then joint": "the same with half the steps, then joint training for what is left of T",
    "joint": "flows from the identity, trained jointly for T",
    "two-stage + joint": "two-stage, then joint training for T more",
    "ensembles of two": "two-stage with two members an expert: about 2T",
}


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.of(list(CANONICAL), ["banana"], ["banana"]),
        n=size.of(10_000, 1_000, 200),
        steps=size.of(1_300, 200, 50),
    )


def run(cell: Row, store: Path) -> list[Row]:
    target, seed, steps = get(cell["target"]), cell["seed"], cell["steps"]
    split = split_target(target, cell["n"], 0, seed, 0, 1)
    x = target.sample(cell["tested"], stream(seed, "fresh draws of a study"))
    log_p = target.log_prob(x)

    def experts(most: int) -> dict[str, MAF | RealNVP | RBIG]:
        return {"maf": MAF(max_steps=most), "realnvp": RealNVP(max_steps=most), "rbig": RBIG()}

    def two_stage(split: Split, most: int) -> tuple[Mixture, float]:
        started = time.monotonic()
        mixture, _ = fit_split(split, experts(most), seed=seed)
        return mixture, time.monotonic() - started

    def kl(mixture: Mixture) -> float:
        return float((log_p - mixture.log_prob(x)).mean())

    full, seconds = two_stage(split, steps)
    short, spent = two_stage(split, max(steps // 2, 25))
    pair, of_pair = two_stage(split_target(target, cell["n"], 0, seed, 0, 2), steps)
    found = {"two-stage": (kl(full), seconds)}
    for name, start, limit, before in (
        ("half, then joint", short, seconds - spent, spent),
        ("joint", _untrained(full), seconds, 0.0),
        ("two-stage + joint", full, seconds, seconds),
    ):
        started = time.monotonic()
        mixture = _jointly(start, split, max(limit, 0.1), stream(seed, "joint", name))
        found[name] = (kl(mixture), before + time.monotonic() - started)
    found["ensembles of two"] = (kl(pair), of_pair)
    return [{"arm": arm, "kl": value, "seconds": s} for arm, (value, s) in found.items()]


def _untrained(mixture: Mixture) -> Mixture:
    """The same with flows that are the identity, and equal weights."""
    experts = dict(mixture.experts)
    for name in FLOWS:
        expert = experts[name]
        initial = expert.flow.initial(1, torch.Generator().manual_seed(0))
        experts[name] = NeuralFlow(expert.config, expert.whitening, initial)
    return Mixture(experts, [1 / len(experts)] * len(experts))


def _jointly(mixture: Mixture, split: Split, seconds: float, generator: torch.Generator) -> Mixture:
    """Flows and weights together by gradient of the mixture's likelihood; RBIG stays.

    The best state on held-out draws is kept, and weighted by the default rule.
    """
    experts = dict(mixture.experts)
    folds = split.folds
    leaves: dict[str, dict[str, Tensor]] = {}
    whitened: dict[str, Tensor] = {}
    for name in FLOWS:
        expert = experts[name]
        leaves[name] = {
            k: v.detach().clone().requires_grad_() for k, v in expert.parameters.items()
        }
        whitened[name] = expert.whitening.forward(folds.draws[None]).float()
    fixed = [name for name in experts if name not in FLOWS]
    constant = log_densities({name: experts[name] for name in fixed}, folds.draws).float()
    started_at = torch.as_tensor(mixture.weights).clamp(min=1e-3).log().float()
    order = [*FLOWS, *fixed]
    logits = started_at[[list(experts).index(name) for name in order]].clone().requires_grad_()

    def log_q(rows: Tensor) -> Tensor:
        columns = []
        for name in FLOWS:
            expert = experts[name]
            points = whitened[name][:, :, rows]
            nll = expert.flow.nll(leaves[name], points)[0]
            columns.append(float(expert.whitening.log_det[0]) - nll)
        return torch.cat([torch.stack(columns, dim=1), constant[rows]], dim=1)

    def loss(rows: Tensor) -> Tensor:
        return -torch.logsumexp(log_q(rows) + logits.log_softmax(dim=0), dim=1).mean()

    train, heldout = folds.train_rows[0], folds.heldout_rows[0]
    masks = {name: experts[name].flow.masks for name in FLOWS}
    trained = [leaf for name in FLOWS for leaf in leaves[name].values()] + [logits]
    adam = torch.optim.Adam(trained, lr=RATE)
    best, state = torch.inf, {name: dict(leaves[name]) for name in FLOWS}
    ends_at = time.monotonic() + seconds
    step = 0
    while True:
        if step % CHECK_EVERY == 0:
            with torch.no_grad():
                score = float(loss(heldout))
            if score < best:
                best = score
                state = {n: {k: v.detach().clone() for k, v in leaves[n].items()} for n in FLOWS}
            if time.monotonic() > ends_at:
                break
        rows = train[torch.randint(len(train), (BATCH,), generator=generator)]
        adam.zero_grad()
        loss(rows).backward()
        for name in FLOWS:
            for key, leaf in leaves[name].items():
                leaf.grad *= masks[name][key]
        adam.step()
        step += 1
    for name in FLOWS:
        expert = experts[name]
        experts[name] = NeuralFlow(expert.config, expert.whitening, state[name])
    weights = fit_weights(cross_validated_log_densities(experts, folds)).weights
    return Mixture(experts, weights)


def report(rows: list[Row]) -> Report:
    body = ["| arm | what it is |", "|---|---|"]
    body += [f"| {arm} | {words} |" for arm, words in ARMS.items()]
    body += ["", "Exact KL(p‖q), nats:", "", *pivot(rows, "target", "arm", "kl"), "",
             "Seconds, everything included:", "",
             *pivot(rows, "target", "arm", "seconds", ".1f"), ""]  # fmt: skip
    return Report(_brief(rows), _answer(rows), body, _figure(rows))


def _ratio(rows: list[Row], arm: str, key: str = "kl") -> np.ndarray:
    """To two frozen stages, of each target and seed."""
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
    def said(arm: str) -> str:
        seconds = _ratio(rows, arm, "seconds").mean()
        return f"{arm} {entry(_ratio(rows, arm), '.2f')} (in {seconds:.2f} times the time)"

    return (
        "KL as a multiple of that of two frozen stages with single experts, mean over targets and "
        "seeds: " + "; ".join(said(arm) for arm in list(ARMS)[1:]) + "."
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

if __name__ == "__main__":
    command(STUDY)
