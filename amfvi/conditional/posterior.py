"""The conditional posterior that a fit to pairs returns: a mixture with its history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from amfvi.conditional.familiarity import Familiarity
from amfvi.conditional.fit import ConditionalSummary
from amfvi.conditional.mixture import ConditionalMixture
from amfvi.conditional.observations import density_given_all
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.log_density import LogDensity
from amfvi.errors import InputError, UsageError
from amfvi.files import new_directory
from amfvi.saving import (
    MANIFEST,
    assemble_checked,
    read_manifest,
    restore_experts,
    write_experts,
)

if TYPE_CHECKING:
    from amfvi.diagnostics.calibration_report import Calibration

__all__ = ["ConditionalPosterior", "is_conditional"]

CONDITIONS = "conditions"
"""The name of the density of the conditions beside the experts of a saved model."""


class ConditionalPosterior(ConditionalMixture):
    """A fitted conditional mixture, and how it was fitted.

    Made by :func:`amfvi.fit` from pairs, and by :func:`amfvi.load`.

    Attributes:
        summary: how it was fitted; None if it was loaded.

    Examples:
        >>> import amfvi, tempfile
        >>> generator = torch.Generator().manual_seed(0)
        >>> c = torch.randn(200, 1, generator=generator, dtype=torch.float64)
        >>> model = amfvi.fit(c.square(), given=c, experts="gmm", names=["energy"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     restored = amfvi.load(model.save(f"{folder}/model"))
        >>> restored.names, restored.given_names
        (('energy',), ('c1',))
    """

    summary: ConditionalSummary | None = None

    @classmethod
    def from_mixture(
        cls, mixture: ConditionalMixture, summary: ConditionalSummary | None = None
    ) -> ConditionalPosterior:
        """A posterior from a mixture and the summary of its fit."""
        posterior = cls.__new__(cls)
        posterior.__dict__.update(mixture.__dict__)
        posterior.summary = summary
        return posterior

    def given_all(self, conditions: Any, *, prior: Any = None) -> LogDensity:
        """The posterior of one y given n independent observations, as an unnormalized density.

        By Bayes' rule p(y | c₁, …, cₙ) ∝ Π p(y | cᵢ) / p(y)ⁿ⁻¹. ``amfvi.fit`` fits it, with a
        verdict and an evidence. Each factor is an approximation, and the errors of their
        logarithms add up over n: an error of 0.05 nats that is the same at every observation
        is 5 nats after a hundred. The verdict is about the product of the approximations, not
        about the simulator: it says whether the product was fitted, and cannot see how far the
        product is from the posterior. Check :meth:`calibration` first.

        The density is −∞ where the prior is lower than at 10,000 draws of it.

        Args:
            conditions: (n, g), one observation a row.
            prior: of the parameters, where the pairs do not say: a distribution of torch or
                Pyro, a :class:`~amfvi.Posterior`, a :class:`~amfvi.LogDensity`, or a function
                from points (m, d) to log densities (m,) in nats. That of a
                :class:`~amfvi.Simulator` or a conditional target is known until it is saved.

        Raises:
            UsageError: the prior's density is not known, or is of other parameters.
            InputError: other numbers than conditions.

        Examples:
            >>> import amfvi
            >>> model = amfvi.fit("linear3", n_draws=500, experts="gmm")
            >>> model.given_all(torch.zeros(5, 4)).names
            ('y1', 'y2', 'y3')
        """
        if prior is None and self.summary is not None:
            prior = self.summary.prior
        fitted = None if self.summary is None else self.summary.split.draws
        return density_given_all(self, self._as_conditions(conditions), prior, fitted)

    def calibration(self, *, n_draws: int = 200, seed: int = 0) -> Calibration:
        """Compare the mixture with the pairs that were held back from its fit.

        Ranks of parameters among draws, coverage of regions of highest density, and of regions
        around random points; see :func:`~amfvi.diagnostics.calibration.measure_calibration`.

        Raises:
            UsageError: no pair was held back, or the posterior was loaded.
        """
        split = None if self.summary is None else self.summary.split
        if split is None or split.test is None or split.test_given is None:
            raise UsageError(
                "no pairs were held back from this fit (test_fraction=), or it was loaded: give "
                "pairs to amfvi.diagnostics.calibration.measure_calibration"
            )
        from amfvi.diagnostics.calibration import measure_calibration  # scipy.stats is slow

        return measure_calibration(
            self, split.test_given, split.test, n_draws=n_draws, seed=seed, names=self.names
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model to a new directory, whole or not at all.

        Raises:
            InputError: the directory exists, or cannot be written.
        """
        path = Path(path)
        with new_directory(path, overwrite=overwrite, marker=MANIFEST) as temporary:
            self.write(temporary)
        return path

    def write(self, directory: Path) -> None:
        """Write manifest and tensors into an existing directory."""
        manifest = {
            "names": list(self.names),
            "given_names": list(self.given_names),
            **self.transform.to_json(),
            "weights": self.weights.tolist(),
            "reference": self._familiarity.reference.tolist(),
        }
        experts = {**self.experts, CONDITIONS: self._familiarity.density}
        write_experts(experts, directory, manifest)

    @classmethod
    def read(cls, path: str | Path, device: torch.device | str = "cpu") -> ConditionalPosterior:
        """Read a saved conditional posterior.

        Raises:
            InputError: nothing there, a damaged or foreign file, an unknown schema, or a model
                without a condition.
        """
        directory, manifest = read_manifest(path)
        if "given_names" not in manifest:
            raise InputError(f"{path}: a fit without a condition; this is of fits to pairs")
        model = assemble_checked(manifest, directory, _assemble)
        return model if str(device) == "cpu" else model.to(device)


def is_conditional(path: str | Path) -> bool:
    """Whether a saved model has a condition.

    Raises:
        InputError: as :func:`~amfvi.saving.read_manifest`.

    Examples:
        >>> is_conditional("no-such-model")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-model: no such model or run directory
    """
    return "given_names" in read_manifest(path)[1]


def _assemble(manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ConditionalPosterior:
    transform = UnconstrainingTransform.from_json(manifest)
    given_names = tuple(str(name) for name in manifest["given_names"])
    *of_mixture, of_conditions = manifest["experts"]
    if of_conditions["name"] != CONDITIONS:
        raise InputError("the saved model has no density of its conditions")
    last = f"{len(of_mixture)}."
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith(last)}
    rest = {f"0.{key[len(last) :]}": t for key, t in tensors.items() if key.startswith(last)}
    density = restore_experts({"experts": [of_conditions]}, rest, len(given_names))
    mixture = ConditionalMixture(
        restore_experts(
            {"experts": of_mixture}, own, transform.constraints.unconstrained_dim, len(given_names)
        ),
        manifest["weights"],
        transform=transform,
        names=tuple(str(name) for name in manifest["names"]),
        given_names=given_names,
        familiarity=Familiarity(
            density=density[CONDITIONS],
            reference=torch.tensor(manifest["reference"], dtype=torch.float64),
        ),
    )
    return ConditionalPosterior.from_mixture(mixture)
