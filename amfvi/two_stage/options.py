"""The options of a fit: one frozen object, checked when it is made."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any, TypedDict

import torch

from amfvi.errors import UsageError, unknown_name
from amfvi.experts import DEFAULT, ExpertConfig, resolve
from amfvi.two_stage.weights import WEIGHT_RULES

__all__ = ["ExpertsLike", "FitOptions", "FitSettings", "InputKind"]

ExpertsLike = str | Sequence[str | ExpertConfig] | Mapping[str, str | ExpertConfig]
"""What a user may give as ``experts=``; see :func:`amfvi.experts.resolve`."""

DEFAULT_BETA = 0.9
"""Momentum of the weight rules that have one, as in AMF-VI."""

DEFAULT_N_DRAWS = 10_000
"""Draws that a target or the sampler of a log density is asked for."""

DEFAULT_TEST_FRACTION = 0.15
"""Share of given draws that is set aside for scores."""

MAX_FOLDS = 20
"""Most members of an expert."""

RULES_WITHOUT_BETA = ("em", "uniform")
"""Weight rules that have no momentum."""


class InputKind(enum.StrEnum):
    """The kinds of input that a mixture can be fitted to, in words.

    Examples:
        >>> f"the input is {InputKind.DENSITY}"
        'the input is a log density'
    """

    TARGET = "exact draws of a target"
    DRAWS = "given draws"
    DENSITY = "a log density"
    DRAWS_WITH_DENSITY = "given draws with their log density"
    PAIRS = "pairs"
    SIMULATOR = "a simulator"


class FitSettings(TypedDict, total=False):
    """The fields of :class:`FitOptions` as keyword arguments of :func:`amfvi.fit`.

    Examples:
        >>> settings: FitSettings = {"experts": "gmm", "seed": 1}
        >>> FitOptions(**settings).seed
        1
    """

    experts: ExpertsLike
    weight_rule: str
    beta: float | None
    n_draws: int | None
    n_weight_draws: int
    folds: int
    test_fraction: float | None
    max_evaluations: int | None
    max_refinements: int | None
    timeout: float | None
    seed: int
    device: torch.device | str
    cluster: str | None


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to fit, whatever the input is.

    Attributes:
        experts: names, configs, or a mapping from name to config.
        weight_rule: "ema", "em", "batch-mean" or "uniform"; see
            :mod:`amfvi.two_stage.weights`.
        beta: momentum of "ema" and "batch-mean", in [0, 1); 0.9 if not given.
        n_draws: draws to fit to, of a target or of the sampler of a log density; 10,000
            if not given.
        n_weight_draws: further draws of a target, for the weights alone.
        folds: members of each expert, each blind to one fold of the draws; 1 for a single
            member and a single held-out part.
        test_fraction: share of given draws set aside for scores, in [0, 0.5]; 0.15 if not
            given.
        max_evaluations: most evaluations of a log density; 150,000 and 20,000 per parameter
            if not given.
        max_refinements: most refinements of a fit to a log density; 8 if not given.
        timeout: seconds for the whole fit; each part stops in time with what there is.
        seed: seed of everything random. Same seed, same machine, same numbers.
        device: "auto", "cpu", "cuda", …
        cluster: address of a Ray cluster, as of :class:`~amfvi.Cluster`, whose workers fit the
            experts, and evaluate a log density or a simulator that has no ``pool``.

    Raises:
        UsageError: an unknown name, a number out of range, or two options that exclude
            each other; the message names the option.

    Examples:
        >>> options = FitOptions(experts=["maf", "rbig"], seed=1)
        >>> list(options.configs), options.momentum
        (['maf', 'rbig'], 0.9)
        >>> FitOptions(folds=0)
        Traceback (most recent call last):
        amfvi.errors.UsageError: folds= must be in [1, 20], found 0
    """

    experts: ExpertsLike = DEFAULT
    weight_rule: str = "ema"
    beta: float | None = None
    n_draws: int | None = None
    n_weight_draws: int = 0
    folds: int = 5
    test_fraction: float | None = None
    max_evaluations: int | None = None
    max_refinements: int | None = None
    timeout: float | None = None
    seed: int = 0
    device: torch.device | str = "auto"
    cluster: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.experts, Iterable):
            raise UsageError(f"experts= must be names or configs, found {self.experts!r}")
        _ = self.configs  # an unknown expert is an error now, not later
        if self.weight_rule not in WEIGHT_RULES:
            raise unknown_name("weight_rule=", str(self.weight_rule), WEIGHT_RULES)
        if self.beta is not None and self.weight_rule in RULES_WITHOUT_BETA:
            raise UsageError(
                f"beta= goes with ema and batch-mean, the weight rule is {self.weight_rule}"
            )
        self._require_whole("n_draws", 20, None)
        self._require_whole("n_weight_draws", 0, None)
        self._require_whole("folds", 1, MAX_FOLDS)
        self._require_whole("max_evaluations", 1, None)
        self._require_whole("max_refinements", 0, None)
        self._require_whole("seed", 0, 2**63 - 1)
        self._require_number("beta", lambda value: 0 <= value < 1, "in [0, 1)")
        self._require_number("test_fraction", lambda value: 0 <= value <= 0.5, "in [0, 0.5]")
        self._require_number(
            "timeout", lambda value: 0 < value < math.inf, "a positive number of seconds"
        )
        if not isinstance(self.cluster, str | None) or self.cluster == "":
            raise UsageError(
                f"cluster= must be the address of a Ray cluster, found {self.cluster!r}"
            )
        if not isinstance(self.device, str | torch.device):
            raise UsageError(f"device= must be a name or a torch device, found {self.device!r}")

    @cached_property
    def configs(self) -> dict[str, ExpertConfig]:
        """The experts' settings by name, in order."""
        return resolve(self.experts)

    def for_pairs(self) -> FitOptions:
        """The same options, with the experts for pairs if no others were chosen."""
        return replace(self, experts="conditional") if self.experts == DEFAULT else self

    @property
    def momentum(self) -> float:
        """β as used."""
        return DEFAULT_BETA if self.beta is None else self.beta

    @property
    def draws_wanted(self) -> int:
        """Draws to fit to as used."""
        return DEFAULT_N_DRAWS if self.n_draws is None else self.n_draws

    @property
    def test_share(self) -> float:
        """Share of given draws set aside as used."""
        return DEFAULT_TEST_FRACTION if self.test_fraction is None else self.test_fraction

    def check_for(self, kind: InputKind) -> None:
        """Reject options that have no meaning for this kind of input.

        Raises:
            UsageError: an option was given that does not apply; the message names it.
        """
        for name, (kinds, goes_with) in APPLICABLE.items():
            if kind not in kinds and getattr(self, name) not in (None, 0):
                raise UsageError(f"{name}= goes with {goes_with}, the input is {kind}")

    def to_json(self) -> dict[str, Any]:
        """Describe the options in JSON values."""
        described = {field.name: getattr(self, field.name) for field in fields(self)}
        described["experts"] = {name: config.to_json() for name, config in self.configs.items()}
        described["device"] = str(self.device)
        return described

    def _require_whole(self, name: str, low: int, high: int | None) -> None:
        value = getattr(self, name)
        if value is None and name in NOT_REQUIRED:
            return
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or value < low or (high is not None and value > high):
            wanted = f"in [{low}, {high}]" if high is not None else f"at least {low}"
            if not whole:
                wanted = f"a whole number {wanted}"
            raise UsageError(f"{name}= must be {wanted}, found {value!r}")
        object.__setattr__(self, name, int(value))  # numpy's integers are no JSON values

    def _require_number(self, name: str, is_valid: Callable[[float], bool], wanted: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if not isinstance(value, Real) or isinstance(value, bool) or not is_valid(float(value)):
            raise UsageError(f"{name}= must be {wanted}, found {value!r}")
        if not isinstance(value, int | float):
            object.__setattr__(self, name, float(value))


NOT_REQUIRED = ("n_draws", "max_evaluations", "max_refinements")
"""Whole numbers that may be left out."""

EVALUATED = (InputKind.DENSITY, InputKind.DRAWS_WITH_DENSITY)
"""Kinds of input whose log density is evaluated."""

APPLICABLE = {
    "n_draws": (
        (InputKind.TARGET, InputKind.DENSITY, InputKind.SIMULATOR),
        "a target, a log density or a simulator",
    ),
    "n_weight_draws": ((InputKind.TARGET,), "exact draws of a target"),
    "test_fraction": (
        (InputKind.DRAWS, InputKind.PAIRS, InputKind.SIMULATOR, *EVALUATED),
        "given draws, pairs or a log density",
    ),
    "max_evaluations": (EVALUATED, "a log density"),
    "max_refinements": (EVALUATED, "a log density"),
}
"""Options that only some kinds of input have a use for, and those kinds in words."""
