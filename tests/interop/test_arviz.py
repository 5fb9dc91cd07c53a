"""ArviZ, the real one, in both directions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import amfvi
from amfvi.errors import InputError, UsageError
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


def rows(data, *names):
    """All draws (n, d) of variables."""
    arrays = [data.posterior[name].values for name in names]
    return np.column_stack([array.reshape(array.shape[0] * array.shape[1], -1) for array in arrays])


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
    assert data.posterior["theta"].shape == (4, 500, 2)
    assert float(data.posterior["mu"].mean()) == pytest.approx(1.0, abs=0.15)
    assert float(data.posterior["theta"].std()) == pytest.approx(1.0, abs=0.1)
    stats = data.sample_stats
    x = rows(data, "mu", "theta")
    assert len(np.unique(x, axis=0)) > 1500
    expected = -0.5 * np.square(x - 1).sum(axis=1)
    assert np.allclose(stats["lp"].values.ravel(), expected, atol=1e-9)
    assert np.isfinite(stats["log_weight"].values).all()
    plain = wide.to_arviz(500)
    log_q = wide.log_prob(rows(plain, "mu", "theta")).numpy()
    assert np.allclose(plain.sample_stats["lp"].values.ravel(), log_q)


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


def hierarchical():
    """Data of a model with coordinates: eight schools, and a matrix by school and by year."""
    random = np.random.default_rng(1)
    coords = {"school": ["Choate", "Deerfield", "Exeter"], "year": [2001, 2002]}
    posterior = {
        "mu": random.normal(size=(4, 300)),
        "theta": random.normal(size=(4, 300, 3)),
        "effect": random.normal(size=(4, 300, 3, 2)),
    }
    dims = {"theta": ["school"], "effect": ["school", "year"]}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict({"posterior": posterior}, dims=dims, coords=coords)
    return arviz.from_dict(posterior=posterior, dims=dims, coords=coords)


def require_same_layout(first, second):
    assert list(first.posterior.data_vars) == list(second.posterior.data_vars)
    for name in first.posterior.data_vars:
        one, other = first.posterior[name], second.posterior[name]
        assert one.dims == other.dims, name
        assert one.shape[2:] == other.shape[2:], name
        for dim in one.dims[2:]:
            assert one.coords[dim].values.tolist() == other.coords[dim].values.tolist()
            assert one.coords[dim].dtype.kind == other.coords[dim].dtype.kind


def test_dimensions_coordinates_and_matrices_come_back(tmp_path):
    data = hierarchical()
    draws = amfvi.from_arviz(data)
    assert draws.names[4:6] == ("effect[1,1]", "effect[1,2]")
    assert np.array_equal(draws.values.numpy(), rows(data, "mu", "theta", "effect"))
    posterior = amfvi.fit(draws, experts="gmm", folds=2)
    require_same_layout(data, posterior.to_arviz(400))
    loaded = amfvi.load(posterior.save(tmp_path / "model"))
    require_same_layout(data, loaded.to_arviz(400))
    # The same with a log density beside the draws, and of a log density alone.
    normal = amfvi.LogDensity(
        lambda x: -0.5 * x.square().sum(dim=1), draws.dim, variables=draws.variables
    )
    judged = amfvi.fit(draws, density=normal, experts="gmm", folds=2)
    require_same_layout(data, judged.to_arviz(400))
    sampled = amfvi.fit(normal, experts="gmm", folds=2, n_draws=1000)
    require_same_layout(data, sampled.to_arviz(400))


def test_the_summary_of_arviz_has_nothing_to_warn_of(caplog):
    normal = amfvi.LogDensity(lambda x: -0.5 * x.square().sum(dim=1), 2, names=("mu", "nu"))
    posterior = amfvi.fit(normal, experts="gmm", folds=2, n_draws=1000)
    data = posterior.to_arviz(2000)
    with caplog.at_level("WARNING"), warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = arviz.summary(data)
    assert not caplog.records
    assert summary["r_hat"].astype(float).max() < 1.02
    assert summary["ess_bulk"].astype(float).min() > 1000
    assert len(np.unique(rows(data, "mu", "nu"), axis=0)) == 2000  # none is repeated
    attributes = data.posterior.attrs
    assert attributes["verdict"] == "trust"
    assert attributes["log_z"] == pytest.approx(np.log(2 * np.pi), abs=0.05)
    assert attributes["inference_library"] == "amfvi"


def test_what_a_model_computes_comes_on_request():
    def computed(x):
        return {"total": np.asarray(x).sum(axis=1), "pair": np.asarray(x)[:, :2]}

    normal = amfvi.LogDensity(lambda x: -0.5 * x.square().sum(dim=1), 3, transformed=computed)
    posterior = amfvi.fit(normal, experts="gmm", folds=2, n_draws=1000)
    assert "total" not in posterior.to_arviz(100).posterior
    data = posterior.to_arviz(100, transformed=True).posterior
    assert np.allclose(data["total"], data["x1"] + data["x2"] + data["x3"])
    assert data["pair"].shape == (4, 25, 2)
    x = np.random.default_rng(0).normal(size=(500, 2))
    with pytest.raises(UsageError, match="a posterior that knows its log density"):
        amfvi.fit(x, experts="gmm").to_arviz(transformed=True)
    plain = amfvi.LogDensity(lambda x: -0.5 * x.square().sum(dim=1), 2)
    with pytest.raises(UsageError, match="nothing is known that"):
        amfvi.fit(x, density=plain, experts="gmm").to_arviz(transformed=True)
