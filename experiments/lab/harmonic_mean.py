"""The evidence from draws and their log density by harmonic, a library made for that.

McEwen, Wallis, Price & Spurio Mancini (2021), arXiv:2111.12720, with normalizing flows of
Polanska, Price, Piras, Spurio Mancini & McEwen (2024), arXiv:2405.05969: half of the chains
train a spline flow, whose density at a lower temperature is the target of a harmonic mean
over the other half. Settings as in its documentation: standardized, temperature .8.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

__all__ = ["learned_harmonic_mean"]

EPOCHS = 30
"""Passes over the draws that train the flow."""

TEMPERATURE = 0.8
"""Of the flow, whose mass has to lie within that of the posterior."""


def learned_harmonic_mean(chains: Tensor, log_density: Tensor, *, seed: int) -> tuple[float, float]:
    """Estimate log Z, nats, and its standard error.

    Args:
        chains: draws (c, n, d) of parameters without bounds; c even.
        log_density: not normalized, at these draws, (c, n), nats.
        seed: of the flow's training.
    """
    import harmonic
    import jax

    np.random.seed(seed)  # harmonic splits the chains by numpy's global generator
    drawn = harmonic.Chains(chains.shape[2])
    drawn.add_chains_3d(chains.numpy(), log_density.numpy())
    for_training, for_inference = harmonic.utils.split_data(drawn, training_proportion=0.5)
    model = harmonic.model.RQSplineModel(chains.shape[2], standardize=True, temperature=TEMPERATURE)
    model.fit(for_training.samples, epochs=EPOCHS, key=jax.random.PRNGKey(seed))
    evidence = harmonic.Evidence(for_inference.nchains, model)
    evidence.add_chains(for_inference)
    log_z, log_sd = evidence.compute_ln_evidence()
    return float(log_z), math.exp(float(log_sd) - float(log_z))
