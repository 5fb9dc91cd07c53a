"""ArviZ, the real one, in both directions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import amfvi
from amfvi.errors import InputError
from amfvi.experts import GMM
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz


def inference_data():
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = {"mu": random.normal(size=(4, 250)), "theta": random.normal(size=(4, 250, 3))}
        if int(arviz.__version__.split(".")[0]) >= 1:
            return posterior, arviz.from_dict({"posterior": posterior})
        return posterior, arviz.from_dict(posterior=posterior)


def test_arviz_data_in():
    arrays, data = inference_data()
    draws = amfvi.from_arviz(data)
    assert draws.names == ("mu", "theta[1]", "theta[2]", "theta[3]")
    assert draws.chain.tolist() == sorted([0, 1, 2, 3] * 250)
    assert np.array_equal(draws.values[250:500, 2].numpy(), arrays["theta"][1, :, 1])
    assert amfvi.from_arviz(data, names=["mu"]).dim == 1
    with pytest.raises(InputError, match="no variable 'nu'"):
        amfvi.from_arviz(data, names=["nu"])
    with pytest.raises(InputError, match="no group 'posterior' in dict"):
        amfvi.from_arviz({})


def test_arviz_data_out_is_resampled_by_weights():
    """A mixture that is off: draws come back from the posterior, not from the mixture."""
    density = amfvi.LogDensity(
        lambda x: -0.5 * (x - 1).square().sum(dim=1), 3, names=("mu", "theta[1]", "theta[2]")
    )
    draws = 1.5 * torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
    wide = amfvi.fit(draws, names=density.names, experts=["gmm"], folds=2, seed=0)
    data = wide.with_log_density(density).to_arviz(2000)
    assert data.posterior["theta"].shape == (1, 2000, 2)
    assert float(data.posterior["mu"].mean()) == pytest.approx(1.0, abs=0.15)
    assert float(data.posterior["theta"].std()) == pytest.approx(1.0, abs=0.1)
    stats = data.sample_stats
    x = np.column_stack([data.posterior["mu"].values[0], data.posterior["theta"].values[0]])
    expected = -0.5 * np.square(x - 1).sum(axis=1)
    assert np.allclose(stats["lp"].values[0], expected, atol=1e-9)
    assert np.isfinite(stats["log_weight"].values).all()
    plain = wide.to_arviz(500)
    x = np.column_stack([plain.posterior["mu"].values[0], plain.posterior["theta"].values[0]])
    assert np.allclose(plain.sample_stats["lp"].values[0], wide.log_prob(x).numpy())


def test_variables_keep_their_shape_out_and_in_again():
    names = ("mu", *(f"L[{i},{j}]" for i in (1, 2) for j in (1, 2)), "theta[1]", "theta[2]", "u[2]")
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)).double()
    mixture = Mixture({"gmm": GMM().fit(x)}, [1.0], names=names)
    data = amfvi.to_arviz(mixture, 400, seed=3)
    shapes = {name: values.shape[2:] for name, values in data.posterior.data_vars.items()}
    assert shapes == {"mu": (), "L": (2, 2), "theta": (2,), "u[2]": ()}
    back = amfvi.from_arviz(data)
    assert back.names == names
    assert torch.equal(back.values, mixture.sample((400,), generator_for(3, "arviz")))
