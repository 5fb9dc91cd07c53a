"""A run directory, read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amfvi import targets
from amfvi.checkpoint import load, read_json
from amfvi.draws import Draws
from amfvi.errors import InputError, MissingFileError, UsageError
from amfvi.metrics.evaluation import (
    Evaluation,
    evaluate_on_draws,
    evaluate_on_split,
    evaluate_on_target,
)
from amfvi.mixture import Mixture
from amfvi.readers import columns_for, read_draws, read_table
from amfvi.run import SAMPLE
from amfvi.run_record import CONFIG, METRICS, SCHEMA, file_hash
from amfvi.split import split_draws
from amfvi.targets import Target

__all__ = ["SavedRun"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SavedRun:
    """The parts of a run directory, read when asked for.

    Raises:
        InputError: on any use, if a file is missing or damaged.
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> SavedRun:
        """Raises InputError if there is no run directory at ``path``."""
        path = Path(path)
        if not path.is_dir():
            raise MissingFileError(f"{path}: no such run directory")
        if not (path / CONFIG).is_file() or not (path / METRICS).is_file():
            raise InputError(f"{path}: not a run directory (no {CONFIG} or no {METRICS} in it)")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        needed = ("target", "draws", "seed", "sha256", "nonfinite", "chains", "test_fraction")
        return _complete(self.path / CONFIG, needed)

    @property
    def metrics(self) -> dict[str, Any]:
        needed = ("mixture", "experts", "weights", "floor", "entropy", "n_test", "warnings")
        return _complete(self.path / METRICS, needed)

    def mixture(self, device: str = "cpu") -> Mixture:
        return load(self.path, device=device)

    def draws(self) -> tuple[Array, tuple[str, ...]]:
        """The saved draws from the mixture (n, d) and the parameter names."""
        path = self.path / "draws.npz"
        table = read_table(path)
        if table.names is None:
            raise InputError(f"{path}: holds no parameter names")
        return columns_for(table, table.names, path), table.names

    def evaluate(self, target: str | None = None, draws: str | None = None) -> Evaluation:
        """Score the model again: on a target, on a file, or as it was scored at first.

        A file that is the one the model was fitted to is split as it was then, and
        only its test draws count.

        Raises:
            UsageError: both a target and draws, or no test draws to be had.
            InputError: the file is missing or no longer the same.
        """
        if target is not None and draws is not None:
            raise UsageError("give at most one of --target and --draws")
        config = self.config
        mixture, seed = self.mixture(), int(config["seed"])
        if draws is None:
            target = target or config["target"]
        if target is not None:
            found = targets.get(target)
            if isinstance(found, Target):
                return evaluate_on_target(mixture, found, seed=seed)
            if target != config["target"]:
                raise UsageError(f"{target} has no exact draws to score on; give --draws")
        if draws is None and config["draws"] is None:
            return self._evaluate_on_sample(mixture, seed)
        return self._evaluate_on_file(mixture, config, draws, seed)

    def _evaluate_on_sample(self, mixture: Mixture, seed: int) -> Evaluation:
        """On the test draws that the sampler of a log density made."""
        path = self.path / SAMPLE
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file")
        try:
            with np.load(path, allow_pickle=False) as saved:
                draws, weight, test = (
                    torch.from_numpy(saved[key]) for key in ("draws", "weight", "test")
                )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        if not bool(test.any()):
            raise UsageError(f"{self.path}: no test draws were set aside; give --target or --draws")
        weighted = bool((weight != weight[0]).any())
        return evaluate_on_draws(
            mixture,
            draws[test],
            seed=seed,
            weight=weight[test] if weighted else None,
            others=draws[~test],
            others_weight=weight[~test] if weighted else None,
        )

    def _evaluate_on_file(
        self, mixture: Mixture, config: dict[str, Any], given: str | None, seed: int
    ) -> Evaluation:
        path = Path(given or str(config["draws"]))
        if not path.is_file():
            hint = "" if given else "; this run was fitted to it, give --draws or --target"
            raise MissingFileError(f"{path}: no such file{hint}")
        nonfinite = str(config["nonfinite"] or "error")
        if file_hash(path) == config["sha256"]:
            draws = read_draws(
                path, nonfinite=nonfinite, support=mixture.bounds, chains=bool(config["chains"])
            )
            split = split_draws(draws, float(config["test_fraction"]), seed, int(config["folds"]))
            if split.test is None:
                raise UsageError(
                    f"{self.path}: no test draws were set aside; give --target or other --draws"
                )
            return evaluate_on_split(mixture, split, seed=seed)
        if given is None:
            raise InputError(f"{path}: has changed since this run was fitted to it")
        table = read_table(path)
        test = Draws.of(
            columns_for(table, mixture.names, path),
            names=mixture.names,
            support=mixture.bounds,
            weights=table.weight,
            nonfinite=nonfinite,
            source=given,
        )
        return evaluate_on_draws(mixture, test.values, seed=seed, weight=test.weight)


def _complete(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object of our schema with these keys.

    Raises:
        InputError: another schema, or a key is missing.
    """
    found = read_json(path)
    missing = [key for key in needed if key not in found]
    if found.get("schema") != SCHEMA or missing:
        what = f"no {missing[0]!r}" if missing else f"schema {found.get('schema')!r}"
        raise InputError(f"{path}: not a file of this version of amfvi ({what} in it)")
    return found
