"""The density estimators, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amfvi.experts.base import Checkpoint, Expert, ExpertConfig, FitReport, Progress
from amfvi.experts.folds import Folds
from amfvi.experts.gmm import GMM
from amfvi.experts.maf import MAF
from amfvi.experts.nsf import NSF
from amfvi.experts.rbig import RBIG
from amfvi.experts.realnvp import RealNVP
from amfvi.experts.tmm import TMM

from amfvi.errors import UsageError, unknown_name

__all__ = [
    "DEFAULT",
    "EXPERTS",
    "GMM",
    "MAF",
    "NSF",
    "PRESETS",
    "RBIG",
    "TMM",
    "Checkpoint",
    "Expert",
    "ExpertConfig",
    "FitReport",
    "Folds",
    "Progress",
    "RealNVP",
    "config_from_json",
    "resolve",
]

EXPERTS: dict[str, type[ExpertConfig]] = {
    "maf": MAF,
    "realnvp": RealNVP,
    "rbig": RBIG,
    "nsf": NSF,
    "gmm": GMM,
    "tmm": TMM,
}

DEFAULT = ("maf", "realnvp", "rbig")

# Names that stand for several experts.
PRESETS = {
    "paper": DEFAULT,
    "robust": (*DEFAULT, "nsf", "gmm", "tmm"),
}

Choice = str | ExpertConfig


def resolve(experts: Sequence[Choice] | Mapping[str, Choice] = DEFAULT) -> dict[str, ExpertConfig]:
    """Experts as the user names them, as an ordered mapping from name to config.

    A sequence may hold names, names of presets ("paper", "robust") and configs; a
    second one of a kind is called ``realnvp-2``. A mapping keeps its own names.

    Raises:
        UsageError: an unknown name, something that is no expert, or none at all.

    >>> list(resolve(["maf", "rbig", "maf"]))
    ['maf', 'rbig', 'maf-2']
    """
    if isinstance(experts, str):
        experts = [name.strip() for name in experts.split(",") if name.strip()]
    if isinstance(experts, Mapping):
        named = {str(name): _config(choice) for name, choice in experts.items()}
    else:
        named = {}
        choices = [
            part
            for choice in experts
            for part in (PRESETS.get(choice, (choice,)) if isinstance(choice, str) else (choice,))
        ]
        for choice in choices:
            config = _config(choice)
            name, number = config.kind, 2
            while name in named:
                name, number = f"{config.kind}-{number}", number + 1
            named[name] = config
    if not named:
        raise UsageError(f"no experts given (known: {', '.join([*EXPERTS, *PRESETS])})")
    return named


def config_from_json(fields: Mapping[str, Any]) -> ExpertConfig:
    """The config that ``ExpertConfig.to_json`` described.

    Raises:
        UsageError: an unknown kind or setting.
    """
    return _family(str(fields.get("kind"))).from_json(fields)


def _config(choice: Choice) -> ExpertConfig:
    if isinstance(choice, ExpertConfig):
        return choice
    if isinstance(choice, str):
        return _family(choice)()
    raise UsageError(f"an expert is a name or a config, found {type(choice).__name__}")


def _family(kind: str) -> type[ExpertConfig]:
    if kind not in EXPERTS:
        raise unknown_name("expert", kind, [*EXPERTS, *PRESETS])
    return EXPERTS[kind]
