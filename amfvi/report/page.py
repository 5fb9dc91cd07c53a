"""The report of one run as one page of HTML that loads nothing."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from amfvi.decimals import number, plus_minus
from amfvi.report.advice import advise
from amfvi.report.command import command_of
from amfvi.report.contents import RunContents
from amfvi.report.rows import evidence_rows, parameter_rows, score_rows, value_of

__all__ = ["render_report", "render_template"]

CAPTIONS = {
    "sampler": (
        "Temperatures, evidence and importance weights",
        "Left, where the sampler ran: its path from a broad start to the posterior. Then the "
        "estimates of the evidence, which should agree, between the bounds. Then the importance "
        "weights of the mixture's draws: the nearer to 1, the better; weight far to the right "
        "hangs on few draws.",
    ),
    "condition": (
        "Parameters against a condition: intervals, and the density with held-back pairs",
        "Above: the median and the central 50% and 90% of the fit at each condition, with draws. "
        "Below: its density, with pairs that it has not seen.",
    ),
    "coverage": (
        "Coverage of regions at every level",
        "How often held-back parameters lie in regions of the fit, against how often they "
        "should. A right fit keeps to the band.",
    ),
    "ranks": (
        "Ranks of held-back parameters among draws",
        "Ranks of held-back parameters among draws of the fit. A right fit keeps to the band.",
    ),
    "draws": (
        "Corner plot: regions of the mixture over reference draws, and marginals",
        "Blue: the mixture, with the regions of 50% and 90% of its mass. Gray: the draws that it "
        "is compared with. Where both agree, the regions hold 50% and 90% of the draws.",
    ),
    "intervals": (
        "Mean, 50% and 90% interval of every parameter, by the mixture and by reference draws",
        "Every parameter in standard deviations of the reference draws; at the right the "
        "Kolmogorov–Smirnov distance of the marginals, from 0 to 1.",
    ),
    "density": (
        "Density of the mixture beside the truth or a histogram of reference draws",
        "The density of the mixture beside that of the truth, in the same colors.",
    ),
    "experts": (
        "Each expert beside the mixture",
        "What each expert has learned, with its weight, and the mixture of all.",
    ),
    "training": (
        "Training curves of the experts",
        "Negative log density of held-out draws while each expert was trained.",
    ),
    "weights": (
        "Weights of the experts over the updates",
        "How the weights of the experts were found.",
    ),
}
"""Alternative text and caption of each figure."""

SECTIONS = {
    "evidence": ("sampler",),
    "calibration": ("coverage", "ranks"),
    "posterior": ("draws", "condition", "intervals", "density"),
    "training": ("experts", "training", "weights"),
}
"""The figures of each section of the page, in their order."""


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """A picture in the page."""

    source: str
    width: int
    height: int
    alt: str
    caption: str


def render_report(run: RunContents) -> str:
    """Write the report of a run as HTML.

    Nothing in it comes from elsewhere: figures are data in the page, which has no script. Names
    of parameters and files are escaped.

    Examples:
        >>> metrics = {"experts": {}, "weights": {"n_eff": 1.0}, "density": None, "n_test": 0}
        >>> run = RunContents(path="runs/<a>", config={"draws": "a.csv"}, metrics=metrics)
        >>> page = render_report(run)
        >>> "runs/&lt;a&gt;" in page, "<script" in page
        (True, False)
    """
    metrics = run.metrics
    columns, rows = parameter_rows(run.parameters)
    heads, scores = ([], []) if not metrics.get("n_test") else score_rows(
        metrics["mixture"], metrics["experts"], metrics.get("floor"), metrics.get("entropy")
    )  # fmt: skip
    packages = run.environment.get("packages") or {}
    version = packages.get("amfvi")
    return render_template(
        "report.html.j2",
        run=run,
        advice=advise(run),
        subtitle=_subtitle(run),
        warnings=metrics.get("warnings") or [],
        evidence=evidence_rows(run.density) if run.density else [],
        calibration=_calibration_rows(metrics.get("calibration")),
        parameters={"columns": columns, "rows": rows},
        scores={"columns": heads, "rows": scores},
        n_test=f"{metrics.get('n_test') or 0:,}",
        experts=_experts(run),
        settings=_settings(run.config),
        environment=[(name, value_of(value)) for name, value in _flat(run.environment)],
        command=command_of(run.config),
        figures={name: list(_figures(run, parts)) for name, parts in SECTIONS.items()},
        version=f" {version}" if version else "",
    )


def _subtitle(run: RunContents) -> str:
    metrics = run.metrics
    parts = [f"A mixture of experts fitted to {run.kind}"]
    dim = metrics.get("dim") or len(metrics.get("names") or run.parameters)
    parts.append("1 parameter" if dim == 1 else f"{dim} parameters")
    if run.is_of_pairs:
        parts.append(f"conditions {', '.join(metrics['given_names'])}")
        parts.append(f"{metrics['n_fitted']:,} pairs fitted")
    elif run.config.get("n_draws") or metrics.get("n_weight"):
        parts.append(f"{run.config.get('n_draws') or metrics['n_weight']:,} draws fitted")
    seconds = (metrics.get("seconds") or {}).get("total")
    if seconds is not None:
        parts.append(f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s")
    return " · ".join(parts)


def _calibration_rows(found: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    if found is None:
        return []
    density = found["log_density"]
    rows = [
        ("mean log density", plus_minus(density["mean"], density["se"], 3),
         f"nats, of {found['n_pairs']} held-back pairs"),
    ]  # fmt: skip
    for key, name in (("hpd", "regions of highest density"), ("tarp", "balls (TARP)")):
        shares = ", ".join(
            f"{at['mean']:.0%} in {at['level']:.0%}" for at in found[key].get("coverage", [])
        )
        rows.append((name, f"p = {found[key]['p_value']:.2g}", f"held-back pairs inside: {shares}"))
    ranks = [(name, test["p_value"]) for name, test in found["sbc"].items()]
    worst = min(ranks, key=lambda rank: rank[1])
    rows.append(
        ("ranks of parameters", f"p = {worst[1]:.2g}", f"the smallest, of {worst[0]}: simulation-"
         "based calibration of each parameter")
    )  # fmt: skip
    p_value = found["given_dependence"]["p_value"]
    rows.append(
        ("ranks and conditions", f"p = {p_value:.2g}", "whether ranks depend on the conditions")
    )
    return rows


def _experts(run: RunContents) -> dict[str, Any]:
    rows = []
    for name, expert in run.metrics["experts"].items():
        nll = expert.get("heldout_nll", expert.get("nll"))
        stopped = expert.get("stopped_by")
        rows.append([
            name, number(expert["weight"], 3), number(nll, 3), number(expert.get("seconds"), 1),
            value_of(stopped),
        ])  # fmt: skip
    return {"columns": ["expert", "weight", "NLL", "seconds", "stopped by"], "rows": rows}


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in config.items():
        if name == "experts":
            rows += [
                (f"expert {kind}", value_of({k: v for k, v in of.items() if k != "kind"}))
                for kind, of in value.items()
            ]
        elif not name.endswith("sha256") and value not in (None, {}, []):
            rows.append((name.replace("_", " "), value_of(value)))
    return rows


def _flat(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif value is not None:
            yield name, value


def _figures(run: RunContents, names: Iterable[str]) -> Iterable[_Figure]:
    for name in names:
        # Figures of many parameters go on: ranks, ranks-2, ranks-3.
        for file in sorted(f for f in run.figures if f == name or f.startswith(f"{name}-")):
            png = run.figures[file]
            alt, caption = CAPTIONS[name]
            width, height = struct.unpack(">II", png[16:24])
            encoded = base64.b64encode(png).decode("ascii")
            yield _Figure(
                source=f"data:image/png;base64,{encoded}", width=width, height=height, alt=alt,
                caption=caption,
            )  # fmt: skip


def render_template(name: str, **values: Any) -> str:
    """Fill in a template of the package, with all values escaped.

    Examples:
        >>> "<title>" in render_template("comparison.html.j2", columns=[""], rows=[], notes=[])
        True
    """
    environment, css = _environment()
    return environment.get_template(name).render(css=css, **values)


@cache
def _environment() -> tuple[Any, Any]:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("amfvi.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    css, _, _ = loader.get_source(environment, "style.css")
    return environment, Markup(css)
