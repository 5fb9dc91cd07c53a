"""Read back what was saved: a posterior, or one for every condition."""

from __future__ import annotations

from pathlib import Path

import torch

from amfvi.conditional.posterior import ConditionalPosterior, is_conditional
from amfvi.diagnostics.report import Diagnostics
from amfvi.errors import InputError, UsageError
from amfvi.posterior import Posterior
from amfvi.saving import read_model
from amfvi.variables import Variables

__all__ = ["load", "load_posterior"]


def load(path: str | Path, device: torch.device | str = "cpu") -> Posterior | ConditionalPosterior:
    """Read what :func:`amfvi.fit` returned from a saved model or from a whole run directory.

    Draws of a loaded posterior follow torch's global random state unless a generator is
    given, so two loads do not repeat each other's draws.

    Returns:
        A :class:`~amfvi.Posterior`, or a :class:`~amfvi.ConditionalPosterior` if the model was
        fitted to pairs.

    Raises:
        InputError: nothing there, a damaged or foreign file, an unknown schema;
            the message names the file.

    Examples:
        >>> import amfvi, tempfile
        >>> posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     restored = load(posterior.save(f"{folder}/model"))
        >>> bool((restored.log_prob([[0.0, 0.0]]) == posterior.log_prob([[0.0, 0.0]])).all())
        True
    """
    if is_conditional(path):
        return ConditionalPosterior.read(path, device)
    return load_posterior(path, device)


def load_posterior(path: str | Path, device: torch.device | str = "cpu") -> Posterior:
    """Read a posterior that has no condition; see :func:`load`.

    Raises:
        InputError: as :func:`load`, or the model has a condition.

    Examples:
        >>> load_posterior("no-such-model")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-model: no such model or run directory
    """
    if is_conditional(path):
        raise InputError(f"{path}: a model of pairs, which needs a condition (given=)")
    saved = read_model(path, device)
    fields = saved.metadata.get("diagnostics")
    try:
        diagnostics = None if fields is None else Diagnostics.from_json(fields)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: its diagnostics cannot be read ({error})") from None
    fields = saved.metadata.get("variables")
    try:
        variables = None if fields is None else Variables.from_json(fields)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise InputError(f"{path}: its variables cannot be read ({error})") from None
    return Posterior.from_mixture(saved.mixture, diagnostics=diagnostics, variables=variables)
