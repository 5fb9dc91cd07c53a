"""The density estimators, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amfvi.errors import UsageError, unknown_name
from amfvi.experts.base import Expert
from amfvi.experts.conditioned import Conditioned, ConditionedExpert
from amfvi.experts.config import ExpertConfig
from amfvi.experts.flow_matching import FlowMatching
from amfvi.experts.folds import Folds
from amfvi.experts.gmm import GMM
from amfvi.experts.logistic_maf import LogisticMAF
from amfvi.experts.maf import MAF
from amfvi.experts.mdn import MDN, NoisyMDN
from amfvi.experts.nle import NLE
from amfvi.experts.nsf import NSF
from amfvi.experts.rbig import RBIG
from amfvi.experts.realnvp import RealNVP
from amfvi.experts.reflected import Reflected, ReflectedExpert
from amfvi.experts.regressions import RegressionMixture
from amfvi.experts.reports import FitReport, Progress, TrainingRecord
from amfvi.experts.tmm import TMM
from amfvi.experts.wrapper import Wrapper

__all__ = [
    "DEFAULT",
    "EXPERTS",
    "GMM",
    "MAF",
    "MDN",
    "NLE",
    "NSF",
    "PRESETS",
    "RBIG",
    "TMM",
    "Conditioned",
    "ConditionedExpert",
    "Expert",
    "ExpertConfig",
    "FitReport",
    "FlowMatching",
    "Folds",
    "LogisticMAF",
    "NoisyMDN",
    "Progress",
    "RealNVP",
    "Reflected",
    "ReflectedExpert",
    "RegressionMixture",
    "TrainingRecord",
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
    "mdn": MDN,
    "noisy_mdn": NoisyMDN,
    "logistic_maf": LogisticMAF,
    "rmm": RegressionMixture,
    "nle": NLE,
    "fm": FlowMatching,
}
"""Config classes by kind."""

DEFAULT = ("maf", "realnvp", "rbig")
"""The experts of the paper, used unless others are named."""

Choice = str | ExpertConfig
"""An expert by the name of its kind or as a config."""

PRESETS: dict[str, tuple[Choice, ...]] = {
    "paper": DEFAULT,
    "robust": (*DEFAULT, "nsf", "gmm", "tmm"),
    # Beside networks and regressions, joint mixtures of many components add time and little else.
    "conditional": (
        "noisy_mdn", "logistic_maf", "nle", GMM(max_components=12), TMM(max_components=6), "rmm",
    ),
}  # fmt: skip
"""Names that stand for several experts."""


def resolve(experts: Sequence[Choice] | Mapping[str, Choice] = DEFAULT) -> dict[str, ExpertConfig]:
    """Resolve experts as the user names them to an ordered mapping from name to config.

    A sequence may hold names, names of presets ("paper", "robust") and configs; the
    second expert of a kind is called ``realnvp-2``. A mapping keeps its own names. A
    string is a list of names separated by commas.

    Raises:
        UsageError: an unknown name, a value that is no expert, or no experts.

    Examples:
        >>> list(resolve(["maf", "rbig", "maf"]))
        ['maf', 'rbig', 'maf-2']
        >>> list(resolve("robust"))
        ['maf', 'realnvp', 'rbig', 'nsf', 'gmm', 'tmm']
    """
    if isinstance(experts, str):
        experts = [name.strip() for name in experts.split(",") if name.strip()]
    if isinstance(experts, Mapping):
        named = {str(name): _to_config(choice) for name, choice in experts.items()}
    else:
        named = {}
        choices = [
            part
            for choice in experts
            for part in (PRESETS.get(choice, (choice,)) if isinstance(choice, str) else (choice,))
        ]
        for choice in choices:
            config = _to_config(choice)
            name, number = config.kind, 2
            while name in named:
                name, number = f"{config.kind}-{number}", number + 1
            named[name] = config
    if not named:
        raise UsageError(f"no experts given (known: {', '.join([*EXPERTS, *PRESETS])})")
    return named


def config_from_json(fields: Mapping[str, Any]) -> ExpertConfig:
    """Rebuild the config that ``ExpertConfig.to_json`` described.

    Raises:
        UsageError: an unknown kind or setting.

    Examples:
        >>> config_from_json({"kind": "gmm", "max_components": 3}).max_components
        3
    """
    wrappers: tuple[type[Wrapper], ...] = (Conditioned, Reflected)
    for wrapper in wrappers:
        if fields.get("kind") == wrapper.kind:
            return wrapper(expert=config_from_json(fields["expert"]))
    return _config_class(str(fields.get("kind"))).from_json(fields)


def _to_config(choice: Choice) -> ExpertConfig:
    if isinstance(choice, ExpertConfig):
        return choice
    if isinstance(choice, str):
        return _config_class(choice)()
    raise UsageError(f"an expert is a name or a config, found {type(choice).__name__}")


def _config_class(kind: str) -> type[ExpertConfig]:
    if kind not in EXPERTS:
        raise unknown_name("expert", kind, [*EXPERTS, *PRESETS])
    return EXPERTS[kind]
