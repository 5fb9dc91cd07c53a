"""Read a run directory back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amfvi import targets
from amfvi.draws.draws import Draws
from amfvi.draws.readers import columns_for, read_arrays, read_draws, read_table
from amfvi.errors import InputError, MissingFileError, UsageError
from amfvi.files import file_hash
from amfvi.json_files import read_json
from amfvi.loading import load_posterior as load
from amfvi.metrics.evaluation import (
    Evaluation,
    evaluate_on_draws,
    evaluate_on_split,
    evaluate_on_target,
)
from amfvi.posterior import Posterior
from amfvi.runs.record import CONFIG, METRICS, SCHEMA, SCORES
from amfvi.runs.run import SAMPLE
from amfvi.sealed_json import describe_damage
from amfvi.targets import ExactTarget
from amfvi.two_stage.split import split_draws

__all__ = ["SavedRun"]

Array = NDArray[np.float64]

CONFIG_TYPES: dict[str, tuple[type, ...]] = {
    "target": (str, NoneType),
    "draws": (str, NoneType),
    "seed": (int,),
    "folds": (int,),
    "sha256": (str, NoneType),
    "nan_policy": (str, NoneType),
    "chains": (bool,),
    "test_fraction": (float, int, NoneType),
    "metrics_sha256": (str,),
}
"""Keys of ``config.json`` that a saved run is read by, and the types of their values."""

METRICS_TYPES: dict[str, tuple[type, ...]] = {
    "mixture": (dict,),
    "experts": (dict,),
    "weights": (dict,),
    "floor": (dict, NoneType),
    "entropy": (float, int, NoneType),
    "density": (dict, NoneType),
    "n_test": (int,),
    "warnings": (list,),
}
"""Keys of ``metrics.json`` that a saved run is read by, and the types of their values."""

PARTS = {
    "mixture": SCORES,
    "weights": ("n_eff",),
    "floor": ("w2", "w2_sd", "mmd2"),
    "density": (
        "log_z", "log_z_se", "log_z_sampler", "log_z_sampler_se", "elbo", "elbo_se", "eubo",
        "eubo_se", "khat", "ess", "n_draws", "n_evaluations", "verdict", "reasons",
    ),
}  # fmt: skip
"""Keys of the objects in ``metrics.json``."""


@dataclass(frozen=True)
class SavedRun:
    """The parts of a run directory, read when asked for.

    Raises:
        InputError: on any use, if a file is missing or damaged.

    Examples:
        >>> SavedRun.open("no-such-run")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-run: no such run directory
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> SavedRun:
        """Open the run directory at ``path``.

        Raises:
            InputError: there is none.
        """
        path = Path(path)
        if not path.is_dir():
            raise MissingFileError(f"{path}: no such run directory")
        if not (path / CONFIG).is_file() or not (path / METRICS).is_file():
            raise InputError(f"{path}: not a run directory (no {CONFIG} or no {METRICS} in it)")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        file = self.path / CONFIG
        config = _read_record(file, CONFIG_TYPES)
        damage = describe_damage(config, file)
        if damage is not None:
            raise InputError(damage)
        return config

    @property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds."""
        file = self.path / METRICS
        metrics = _read_record(file, METRICS_TYPES)
        for part, keys in PARTS.items():
            _require_keys(file, part, metrics[part], keys)
        for name, expert in metrics["experts"].items():
            _require_keys(file, f"expert {name}", expert, (*SCORES, "weight"))
        if file_hash(file) != self.config["metrics_sha256"]:
            raise InputError(
                f"{file}: damaged or edited: its SHA-256 is not the one in {CONFIG}; copy the "
                "run again, or fit again"
            )
        return metrics

    def posterior(self, device: str = "cpu") -> Posterior:
        """The fitted posterior."""
        return load(self.path, device=device)

    def draws(self) -> tuple[Array, tuple[str, ...]]:
        """The saved draws from the mixture (n, d) and the parameter names."""
        path = self.path / "draws.npz"
        table = read_table(path)
        if table.names is None:
            raise InputError(f"{path}: holds no parameter names")
        return columns_for(table, table.names, path), table.names

    def evaluate(
        self,
        target: str | None = None,
        draws: str | None = None,
        *,
        floor_cache: Path | None = None,
    ) -> Evaluation:
        """Score the model again: on a target, on a file, or as it was scored at first.

        A file that is the one the model was fitted to is split as it was then, and
        only its test draws count.

        Args:
            floor_cache: file that keeps floors of targets between calls.

        Raises:
            UsageError: both a target and draws, or no test draws to be had.
            InputError: the file is missing or no longer the same.
        """
        if target is not None and draws is not None:
            raise UsageError("give at most one of target= and draws=")
        config = self.config
        posterior, seed = self.posterior(), int(config["seed"])
        if draws is None:
            target = target or config["target"]
        if target is not None:
            chosen = targets.get(target)
            if isinstance(chosen, ExactTarget):
                return evaluate_on_target(posterior, chosen, seed=seed, floor_cache=floor_cache)
            if target != config["target"]:
                raise UsageError(f"{target} has no exact draws to score on; give draws=")
        if draws is None and config["draws"] is None:
            return self._evaluate_on_sample(posterior, seed)
        return self._evaluate_on_file(posterior, config, draws, seed)

    def _evaluate_on_sample(self, posterior: Posterior, seed: int) -> Evaluation:
        """Score on the test draws that the sampler of a log density made."""
        path = self.path / SAMPLE
        arrays = read_arrays(path)
        missing = [key for key in ("draws", "weight", "test") if key not in arrays]
        if missing:
            raise InputError(f"{path}: holds no array {missing[0]!r}")
        draws, weight, is_test = (
            torch.from_numpy(arrays[key]) for key in ("draws", "weight", "test")
        )
        if not bool(is_test.any()):
            raise UsageError(f"{self.path}: no test draws were set aside; give target= or draws=")
        weighted = bool((weight != weight[0]).any())
        return evaluate_on_draws(
            posterior,
            draws[is_test],
            seed=seed,
            sample_weight=weight[is_test] if weighted else None,
            others=draws[~is_test],
            others_weight=weight[~is_test] if weighted else None,
        )

    def _evaluate_on_file(
        self, posterior: Posterior, config: dict[str, Any], file: str | None, seed: int
    ) -> Evaluation:
        path = Path(file or str(config["draws"]))
        if not path.is_file():
            hint = "" if file else "; this run was fitted to it, give draws= or target="
            raise MissingFileError(f"{path}: no such file{hint}")
        nan_policy = str(config["nan_policy"] or "raise")
        constraints = posterior.constraints
        if file_hash(path) == config["sha256"]:
            draws = read_draws(
                path,
                nan_policy=nan_policy,
                constraints=constraints,
                chains=bool(config["chains"]),
            )
            split = split_draws(draws, float(config["test_fraction"]), seed, int(config["folds"]))
            if split.test is None:
                raise UsageError(
                    f"{self.path}: no test draws were set aside; give target= or other draws="
                )
            return evaluate_on_split(posterior, split, seed=seed)
        if file is None:
            raise InputError(f"{path}: has changed since this run was fitted to it")
        table = read_table(path)
        test = Draws.from_array(
            columns_for(table, posterior.names, path),
            names=posterior.names,
            constraints=constraints,
            sample_weight=table.sample_weight,
            nan_policy=nan_policy,
            source=file,
        )
        return evaluate_on_draws(
            posterior, test.values, seed=seed, sample_weight=test.sample_weight
        )


def _read_record(path: Path, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """A JSON object of our schema with these keys and types of values.

    Raises:
        InputError: another schema, or a key is missing or of another type.
    """
    record = read_json(path)
    if "given" in record and "schema" not in record:
        raise InputError(
            f"{path}: a run of pairs; amfvi.load reads its model, and on the command line summary, "
            "evaluate, calibrate and sample --given read it"
        )
    if record.get("schema") != SCHEMA:
        raise _foreign(path, f"schema {record.get('schema')!r}")
    for key, allowed in types.items():
        if key not in record:
            raise _foreign(path, f"no {key!r}")
        # To Python True is an int, to JSON it is not.
        if not isinstance(record[key], allowed) or (
            isinstance(record[key], bool) and bool not in allowed
        ):
            raise _foreign(path, f"{record[key]!r:.40} as {key!r}")
    return record


def _require_keys(path: Path, part: str, value: Any, keys: tuple[str, ...]) -> None:
    """Check an object inside a record; None has no keys."""
    if value is not None and not isinstance(value, dict):
        raise _foreign(path, f"{value!r:.40} as {part!r}")
    missing = [key for key in keys if value is not None and key not in value]
    if missing:
        raise _foreign(path, f"no {missing[0]!r} in {part!r}")


def _foreign(path: Path, found: str) -> InputError:
    return InputError(f"{path}: not a file of this version of amfvi ({found}); fit again")
