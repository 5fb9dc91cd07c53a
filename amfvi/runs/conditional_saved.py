"""Read the directory of a run of pairs back: its record, its scores and its calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.conditional.mixture import ConditionalMixture
from amfvi.conditional.posterior import ConditionalPosterior
from amfvi.diagnostics.calibration import measure_calibration
from amfvi.diagnostics.calibration_report import Calibration
from amfvi.errors import InputError, MissingFileError
from amfvi.files import file_hash
from amfvi.json_files import read_json
from amfvi.runs.record import CONFIG, METRICS
from amfvi.sealed_json import describe_damage
from amfvi.statistics import Estimate

__all__ = ["HELD_BACK", "SavedConditionalRun", "is_run_of_pairs"]

HELD_BACK = "held_back.npz"
"""The file of pairs that nothing was fitted to."""


def is_run_of_pairs(path: str | Path) -> bool:
    """Whether there is a run directory of a fit to pairs.

    Examples:
        >>> is_run_of_pairs("no-such-run")
        False
    """
    file = Path(path) / CONFIG
    return file.is_file() and "given" in (config := read_json(file)) and "schema" not in config


@dataclass(frozen=True)
class SavedConditionalRun:
    """The parts of a directory of a run of pairs, read when asked for.

    Raises:
        InputError: on any use, if a file is missing or damaged.

    Examples:
        >>> SavedConditionalRun(Path("no-such-run")).calibrate()
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-run: no such model or run directory
    """

    path: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds."""
        config, file = read_json(self.path / CONFIG), self.path / METRICS
        if damage := describe_damage(config, self.path / CONFIG):
            raise InputError(damage)
        if not file.is_file():
            raise MissingFileError(f"{file}: no such file")
        if file_hash(file) != config.get("metrics_sha256"):
            raise InputError(
                f"{file}: damaged or edited: its SHA-256 is not the one in {CONFIG}; copy the "
                "run again, or fit again"
            )
        return read_json(file)

    def held_back(self) -> tuple[Tensor, Tensor]:
        """Conditions (n, g) and parameters (n, d) that nothing was fitted to."""
        file = self.path / HELD_BACK
        if not file.is_file():
            raise MissingFileError(
                f"{file}: no such file; the run held no pairs back (test_fraction=)"
            )
        with np.load(file, allow_pickle=False) as saved:
            return torch.from_numpy(saved["given"]), torch.from_numpy(saved["y"])

    def evaluate(self) -> dict[str, Any]:
        """Mean negative log densities in nats of the pairs held back, with standard errors.

        Returns:
            ``n_test``, and ``nll`` and ``nll_se`` of the ``mixture`` and of each of its
            ``experts``, those with their ``weight``, too.
        """
        model = ConditionalPosterior.read(self.path)
        given, y = self.held_back()
        return {
            "n_test": len(y),
            "mixture": _score(model, given, y),
            "experts": {
                name: {"weight": float(weight), **_score(model.expert(name), given, y)}
                for name, weight in zip(model.experts, model.weights, strict=True)
            },
        }

    def calibrate(
        self, *, n_draws: int = 200, seed: int = 0, figures: Path | None = None
    ) -> Calibration:
        """Measure the calibration on the pairs held back.

        Args:
            figures: a folder for its figures, made if it is not there; none are drawn if None.
        """
        model = ConditionalPosterior.read(self.path)
        given, y = self.held_back()
        calibration = measure_calibration(
            model, given, y, n_draws=n_draws, seed=seed, names=model.names
        )
        if figures is not None:
            from amfvi.runs.conditional_figures import draw_pairs_figures  # matplotlib is slow

            draw_pairs_figures(model, calibration, given, y, figures, seed=seed)
        return calibration


def _score(model: ConditionalMixture, given: Tensor, y: Tensor) -> dict[str, float]:
    nll = Estimate.from_terms(-model.log_prob(y, given=given))
    return {"nll": nll.mean, "nll_se": nll.se}
