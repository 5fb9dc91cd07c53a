"""Stan programs, compiled for real, as log densities."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import amfvi
from amfvi.density.joint import require_gradient
from amfvi.errors import InputError, UsageError
from amfvi.interop import stan as bridge
from amfvi.interop.own_space import find_own_space
from amfvi.variables import group_labels

pytest.importorskip("httpstan", reason="needs PyStan")

EVERYTHING = """
data { int<lower=0> n; vector[n] y; array[2, 3] int counts; }
parameters {
  real mu;
  real<lower=1> tau;
  real<upper=2> below;
  vector<lower=-1, upper=3>[2] u;
  real<offset=5, multiplier=2> shifted;
  matrix[2, 3] M;
  simplex[3] w;
  array[2] simplex[3] ws;
  ordered[3] cuts;
  cholesky_factor_corr[3] L;
  cov_matrix[2] S;
  real<lower=mu> above;
}
transformed parameters { vector[2] scaled = tau * u; }
model {
  mu ~ normal(0, 2);
  tau ~ lognormal(0, 1);
  below ~ normal(0, 1);
  u ~ normal(0, 1);
  shifted ~ normal(5, 2);
  to_vector(M) ~ normal(0, 1);
  w ~ dirichlet([2, 3, 4]');
  for (i in 1:2) ws[i] ~ dirichlet([2, 2, 2]');
  cuts ~ normal(0, 2);
  L ~ lkj_corr_cholesky(2);
  S ~ wishart(4, identity_matrix(2));
  above ~ normal(0, 3);
  y ~ normal(mu, tau);
  if (mu > 50) reject("far");
}
generated quantities { real twice = 2 * mu; }
"""
DATA = {"n": 3, "y": [0.5, -1.0, 2.0], "counts": [[1, 2, 3], [4, 5, 6]]}

CONJUGATE = """
data { int n; vector[n] y; }
parameters { real mu; }
model { mu ~ normal(0, 2); y ~ normal(mu, 1); }
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder where the program stays compiled from one test to the next."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def keep_compiled(cache, monkeypatch):
    monkeypatch.setattr("amfvi.interop.stan_library.cache_folder", lambda: cache)


@pytest.fixture
def compiled():
    return bridge._compile(EVERYTHING, DATA, 0)


@pytest.fixture
def density():
    return amfvi.from_stan(EVERYTHING, data=DATA)


def inside(density, n=5):
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(n, density.constraints.unconstrained_dim, generator=generator).double()
    return density.transform.from_unconstrained(y)


def test_parameters_come_back_in_their_own_space(density):
    shapes = {variable.name: variable.shape for variable in density.variables.each}
    assert shapes == {
        "mu": (), "tau": (), "below": (), "u": (2,), "shifted": (), "M": (2, 3), "w": (3,),
        "ws": (2, 3), "cuts": (3,), "L": (3, 3), "unconstrained_S": (3,),
        "unconstrained_above": (),
    }  # fmt: skip
    bounds = dict(
        zip(density.names, zip(density.constraints.lower, density.constraints.upper, strict=True),
            strict=True)
    )  # fmt: skip
    assert bounds["tau"] == (1, math.inf)
    assert bounds["below"] == (-math.inf, 2)
    assert bounds["u[2]"] == (-1, 3)
    assert bounds["shifted"] == (-math.inf, math.inf)
    kinds = [(v.kind, density.names[v.start], v.size) for v in density.constraints.vectors]
    assert kinds == [
        ("simplex", "w[1]", 3), ("simplex", "ws[1,1]", 3), ("simplex", "ws[2,1]", 3),
        ("ordered", "cuts[1]", 3), ("corr_cholesky", "L[1,1]", 9),
    ]  # fmt: skip


def test_the_density_is_stans_with_the_jacobian_of_its_own_map(compiled, density):
    """log p(x) = log p(y) − log |dx/dy|, by finite differences of what Stan computes."""
    dim = len(compiled.unconstrained_names)
    y = np.random.default_rng(1).normal(size=(4, dim))
    labels = compiled.names()
    # The coordinates that densities are with respect to: no last entry of a simplex, and of a
    # Cholesky factor those below the diagonal.
    dropped = {"w.3", "ws.1.3", "ws.2.3"} | {f"L.{i}.{j}" for i in "123" for j in "123" if i <= j}
    free = ("S", "above")
    kept = [
        i for i, label in enumerate(labels)
        if label not in dropped and label.split(".")[0] not in free
    ]  # fmt: skip
    own = [
        i for i, label in enumerate(compiled.unconstrained_names)
        if label.split(".")[0] not in free
    ]  # fmt: skip
    grouped = group_labels(labels)
    free_columns = {
        name: sorted(columns)
        for name, (_, columns) in group_labels(compiled.unconstrained_names).items()
    }
    for point in y:
        steps = 1e-5 * np.eye(dim)
        ends = [compiled.constrain(point + sign * steps) for sign in (1, -1)]
        jacobian = ((ends[0] - ends[1]) / 2e-5)[np.ix_(own, kept)]
        log_det = np.linalg.slogdet(jacobian)[1]
        values = compiled.constrain(point[None])[0]
        x = [
            point[free_columns[part.name.removeprefix("unconstrained_")]]
            if part.name.startswith("unconstrained_")
            else values[grouped[part.name][1]]
            for part in density.variables.each
        ]
        log_p = density.log_prob(torch.from_numpy(np.concatenate(x))[None])
        expected = compiled.log_density(point[None])[0] - log_det
        assert float(log_p) == pytest.approx(expected, abs=1e-5)


def test_gradients_are_those_of_finite_differences(density):
    x = inside(density).requires_grad_()
    (gradient,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    assert density.vectorized.differentiable
    # Off the simplex and the Cholesky factors, whose entries cannot be moved one at a time.
    scalars = [i for i, name in enumerate(density.names) if name[0] not in "wLc"]

    def values(part):
        whole = x.detach().repeat(len(part) // len(x), 1)
        if len(part) > len(x):
            whole = x.detach().repeat_interleave(len(scalars), dim=0).repeat(2, 1)
        whole = whole.clone()
        whole[:, scalars] = part
        return density.log_prob(whole)

    names = [density.names[i] for i in scalars]
    require_gradient(values, gradient[:, scalars], x.detach()[:, scalars], 1e-15, names)


def test_transformed_parameters_and_generated_quantities_on_request(density):
    x = inside(density)
    found = density.transformed(x.numpy())
    column = density.names.index
    assert set(found) == {"S", "above", "scaled", "twice"}
    assert np.allclose(found["twice"], 2 * x[:, column("mu")])
    tau = x[:, column("tau")].numpy()
    assert np.allclose(found["scaled"][:, 1], tau * x[:, column("u[2]")].numpy())
    assert np.allclose(found["S"], found["S"].swapaxes(1, 2))
    assert bool((found["above"] > x[:, column("mu")].numpy()).all())


def test_a_rejected_point_has_density_zero(density):
    x = inside(density, 2)
    x[0, density.names.index("mu")] = 60.0
    assert density.log_prob(x).isinf().tolist() == [True, False]


def test_what_stan_refuses_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"the Stan program is not valid: .*Syntax error"):
        amfvi.from_stan("parameters { real mu }", data={})
    with pytest.raises(InputError, match=r"does not take the data.*counts"):
        amfvi.from_stan(EVERYTHING, data={"n": 3, "y": [0.5, -1.0, 2.0]})
    with pytest.raises(InputError, match="data 'y' must be numbers"):
        amfvi.from_stan(EVERYTHING, data=DATA | {"y": ["a", "b", "c"]})
    with pytest.raises(InputError, match=r"missing\.stan: no such file, expected a Stan program"):
        amfvi.from_stan("missing.stan", data={})
    with pytest.raises(UsageError, match=r"a \.stan file, found int"):
        amfvi.from_stan(3)
    program, data = tmp_path / "model.stan", tmp_path / "data.json"
    program.write_text(EVERYTHING, encoding="utf-8")
    data.write_text(json.dumps(DATA), encoding="utf-8")
    assert amfvi.from_stan(program, data=data).names[:2] == ("mu", "tau")


class LikeBridgeStan:
    """BridgeStan's protocol, answered by our own library."""

    def __init__(self, library):
        self.library = library

    def param_unc_names(self):
        return list(self.library.unconstrained_names)

    def param_names(self, include_tp, include_gq):
        return list(self.library.names(transformed=include_tp, generated=include_gq))

    def log_density(self, y, propto, jacobian):
        assert (propto, jacobian) == (False, True)
        value = float(self.library.log_density(y[None])[0])
        if math.isinf(value):
            raise RuntimeError("rejected")
        return value

    def log_density_gradient(self, y, propto, jacobian):
        _, gradient = self.library.log_density_gradient(y[None])
        return self.log_density(y, propto, jacobian), gradient[0]

    def new_rng(self, seed):
        return seed

    def param_constrain(self, y, include_tp, include_gq, rng=None):
        return self.library.constrain(y[None], transformed=include_tp, generated=include_gq)[0]


def test_a_model_of_bridgestan_is_the_same_density(compiled, density):
    other = amfvi.from_stan(LikeBridgeStan(compiled))
    x = inside(density)
    assert other.names == density.names
    assert other.constraints == density.constraints
    assert torch.allclose(other.log_prob(x), density.log_prob(x))
    assert set(other.transformed(x.numpy())) == set(density.transformed(x.numpy()))
    with pytest.raises(UsageError, match="has its data already"):
        amfvi.from_stan(LikeBridgeStan(compiled), data=DATA)


def test_a_map_that_is_none_of_the_known_stays_unconstrained():
    space = find_own_space(lambda y: np.sinh(y), ["a.1", "a.2"], ["a.1", "a.2"])
    assert space.variables.names == ("unconstrained_a[1]", "unconstrained_a[2]")
    y = torch.randn(3, 2).double()
    assert torch.equal(space.to_unconstrained(y)[0], y)


@pytest.mark.slow
def test_the_evidence_of_a_conjugate_program_is_exact():
    """With all constants, which PyStan's own log_prob leaves out."""
    y = [0.3, -0.8, 1.9, 1.1]
    posterior = amfvi.fit(
        amfvi.from_stan(CONJUGATE, data={"n": 4, "y": y}), seed=0,
        experts=["gmm", "tmm"], folds=2, n_draws=3000,
    )  # fmt: skip
    covariance = torch.eye(4).double() + 4.0
    exact = torch.distributions.MultivariateNormal(torch.zeros(4).double(), covariance)
    exact_log_z = float(exact.log_prob(torch.tensor(y).double()))
    assert posterior.diagnostics.log_z == pytest.approx(exact_log_z, abs=0.01)
    assert float(posterior.sample((20_000,)).mean()) == pytest.approx(4 * sum(y) / 17, abs=0.02)
