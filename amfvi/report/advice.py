"""A verdict in words: what it means for the user, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from amfvi.report.contents import RunContents

__all__ = ["ADVICE", "Advice", "advise"]

ADVICE = {
    "was stopped by": "Give the sampler more time or evaluations: raise --timeout or "
    "--max-evaluations, or leave them out.",
    "heavy tails?": "Fit with --experts maf,realnvp,rbig,tmm: the Student-t mixture tmm has heavy "
    "tails.",
    "further apart than their errors": "Two estimates of log Z differ. Fit again with more "
    "--n-draws; if they still differ, believe neither.",
    "two runs of the sampler differ": "The runs have not met: raise --max-evaluations, or start "
    "them in a --box that holds the posterior.",
    "it lacks parts that they visit": "Raise --n-draws, and add experts (--experts robust).",
    "they have not reached all that the mixture shows": "The draws miss a part of the posterior: "
    "run their sampler longer and from several starts.",
    "are effective, too few": "Add experts (--experts robust), or raise --n-draws.",
    "too much hangs on a few draws": "Raise --max-evaluations, so that more weighted draws are "
    "made.",
    "draws leave it": "Raise --max-refinements, or add experts (--experts robust).",
    "not near enough for weights": "Add experts (--experts robust), or raise --n-draws.",
    "k̂ of a variance": "Add the expert tmm: a variance comes from tails that the mixture lacks.",
    "weighted ones are too few": "Raise --max-evaluations, so that more weighted draws are made.",
    "two sets of weighted draws differ": "Raise --max-evaluations, or add the expert tmm.",
    "a standard deviation is known to": "Add the expert tmm, or raise --max-evaluations.",
    "too few evaluations were left": "Raise --max-evaluations: some checks could not be made.",
    "nearer to a bound than": "Look at the priors: the mass runs to a bound.",
    "lacks tails": "Add the expert tmm, or raise --max-refinements.",
    "lacks a mode": "Raise --max-refinements, or start the sampler in a --box that holds all "
    "modes.",
}
"""What to do about a reason, by words that the reason has."""

MEANING = {
    "trust": "Draws of the mixture can be used as draws of the posterior.",
    "use with importance weights": "Draws can be used with their importance weights. Without "
    "weights they are approximate.",
    "do not trust": "The mixture is not the posterior. Do not use its draws.",
    "calibrated": "On pairs that the fit has not seen, no test finds its uncertainty wrong.",
    "miscalibrated": "On pairs that the fit has not seen, its uncertainty is wrong.",
}
"""What a verdict means for the user."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A verdict in words.

    Attributes:
        tone: "good", "fair", "bad" or "none", for its color.
        title: the verdict, or that there is none.
        meaning: what it means for the user.
        reasons: why.
        steps: what to do next, each a sentence and a command, which may be empty.

    Examples:
        >>> Advice(tone="bad", title="do not trust", meaning="", reasons=(), steps=()).tone
        'bad'
    """

    tone: str
    title: str
    meaning: str
    reasons: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]


def advise(run: RunContents) -> Advice:
    """Say what the verdict on a run means and what to do next.

    Examples:
        >>> run = RunContents(path="runs/a", config={"draws": "a.csv"}, metrics={"density": None})
        >>> advise(run).title
        'no verdict'
        >>> advise(run).steps[0][1]
        'amfvi fit --draws a.csv --log-density FILE.py:FUNCTION'
    """
    if run.is_of_pairs:
        return _of_pairs(run)
    if run.density is None:
        return _of_draws(run)
    verdict = str(run.density["verdict"])
    reasons = tuple(run.density["reasons"])
    sample = ("Take draws:", f"amfvi sample {run.path} -n 10000 --out draws.csv")
    if verdict == "trust":
        tone, steps = "good", [sample]
    elif verdict == "do not trust":
        tone, steps = "bad", [(text, "") for text in _matching(reasons)]
        steps = steps or [("Fit again with more experts:", "amfvi fit … --experts robust")]
    else:
        tone, steps = (
            "fair",
            [
                ("Use the arrays draws and log_weight of:", f"{run.path}/weighted_draws.npz"),
                (
                    "Or, in Python, turn them into plain draws, where density is the LogDensity:",
                    f'amfvi.load("{run.path}").with_log_density(density).corrected_draws()',
                ),
            ],
        )
    return Advice(
        tone=tone, title=verdict, meaning=MEANING[verdict], reasons=reasons, steps=tuple(steps)
    )


def _matching(reasons: tuple[str, ...]) -> list[str]:
    found = [text for words, text in ADVICE.items() if any(words in reason for reason in reasons)]
    return list(dict.fromkeys(found))


def _of_draws(run: RunContents) -> Advice:
    """Without a log density nothing is checked but closeness to held-out draws."""
    steps = [("Take draws:", f"amfvi sample {run.path} -n 10000 --out more.csv")]
    draws, target = run.config.get("draws"), run.config.get("target")
    if draws:
        steps.insert(0, (
            "For a verdict and an evidence, give the log density that the draws are from:",
            f"amfvi fit --draws {draws} --log-density FILE.py:FUNCTION",
        ))  # fmt: skip
    elif target:
        steps.insert(0, (
            "For a verdict, fit the target by its log density:",
            f"amfvi fit --target {target} --from density",
        ))  # fmt: skip
    return Advice(
        tone="none",
        title="no verdict",
        meaning="Draws alone cannot say whether they cover the whole posterior. The scores below "
        "say how close the mixture is to draws that it was not fitted to.",
        reasons=_closeness(run),
        steps=tuple(steps),
    )


def _closeness(run: RunContents) -> tuple[str, ...]:
    """What the scores say, for those who do not know them."""
    scores, floor = run.metrics.get("mixture") or {}, run.metrics.get("floor")
    found = []
    if scores.get("kl") is not None:
        found.append(
            f"the Kullback–Leibler divergence from the truth is {scores['kl']:.4f} nats, where 0 "
            "is perfect"
        )
    if floor is not None and scores.get("w2") is not None and floor.get("w2") is not None:
        noise = 2 * ((scores.get("w2_sd") or 0.0) ** 2 + (floor.get("w2_sd") or 0.0) ** 2) ** 0.5
        farther = scores["w2"] > floor["w2"] + noise
        found.append(
            f"draws of the mixture are {scores['w2']:.3g} (Wasserstein-2) from test draws; two "
            f"samples of the truth are {floor['w2']:.3g} apart, so the mixture is "
            + ("farther than chance allows" if farther else "as near as another sample would be")
        )
    if scores.get("mmd_p") is not None:
        differs = scores["mmd_p"] < 0.01
        found.append(
            f"a two-sample test (MMD) {'tells' if differs else 'does not tell'} its draws from "
            f"test draws (p = {scores['mmd_p']:.2g})"
        )
    return tuple(found)


def _of_pairs(run: RunContents) -> Advice:
    given = ",".join(f"{name}=…" for name in run.metrics["given_names"])
    steps = [("Take draws at a condition:", f"amfvi sample {run.path} --given {given} -n 10000")]
    calibration = run.metrics.get("calibration")
    if calibration is None:
        return Advice(
            tone="none",
            title="not calibrated",
            meaning="No pairs were held back, so nothing is known of its calibration.",
            reasons=(),
            steps=(*steps, ("Hold some back:", "amfvi fit … --test-fraction 0.15")),
        )
    verdict = str(calibration["verdict"])
    good = verdict == "calibrated"
    if not good:
        steps = [("Fit to more pairs, or with more experts (--experts).", ""), *steps]
    return Advice(
        tone="good" if good else "bad",
        title=verdict,
        meaning=MEANING[verdict],
        reasons=tuple(calibration["reasons"]),
        steps=tuple(steps),
    )
