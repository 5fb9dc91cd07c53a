"""The commands ``amfvi targets`` and ``amfvi experts``: what there is to fit, and to fit with."""

from __future__ import annotations

import sys

from amfvi.cli import options as opt

__all__ = ["experts", "targets"]


def targets(as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """List the targets, posteriors with known answers.

    \f
    Examples:
        >>> targets(as_json=True)
        {
         "banana": {
        ...
    """
    from amfvi.cli import console
    from amfvi.targets import TARGETS, ExactTarget, get
    from amfvi.targets.conditional import CONDITIONAL
    from amfvi.targets.conditional import get as get_conditional

    rows = {}
    for name, kind in TARGETS.items():
        target = get(name)
        rows[name] = {
            "dim": target.dim,
            "given": 0,
            "exact draws": isinstance(target, ExactTarget),
            "entropy": target.entropy,
            "definition": (kind.__doc__ or "").splitlines()[0].strip(),
            "source": target.source,
        }
    for name, of_pairs in CONDITIONAL.items():
        conditional = get_conditional(name)
        rows[name] = {
            "dim": conditional.dim,
            "given": conditional.given_dim,
            "exact draws": True,
            "entropy": conditional.entropy,
            "definition": (of_pairs.__doc__ or "").splitlines()[0].strip(),
            "source": conditional.source,
        }
    console.show_listing(rows, as_json)


def experts(as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """List the experts and their settings.

    \f
    Examples:
        >>> experts(as_json=True)
        {
         "maf": {
        ...
    """
    from amfvi.cli import console
    from amfvi.experts import EXPERTS

    rows = {}
    for name, kind in EXPERTS.items():
        module = sys.modules[kind.__module__]
        settings = {k: v for k, v in kind().to_json().items() if k != "kind"}
        rows[name] = {
            "family": (module.__doc__ or "").splitlines()[0],
            "settings": settings if as_json else ", ".join(f"{k} {v}" for k, v in settings.items()),
        }
    console.show_listing(rows, as_json)
