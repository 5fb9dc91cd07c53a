"""The same flow as nflows modules: equal to 1e-10, in every dimension, for every member."""

from __future__ import annotations

import pytest
import torch

from amfvi.interop.nflows import to_nflows


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dim", [2, 3, 5, 10])
@pytest.mark.parametrize("kind", ["maf", "realnvp", "nsf"])
def test_density_and_inverse_agree(kind, dim, fitted, curved):
    expert, _ = fitted(kind, dim)
    x = curved(dim, 400, 6)
    every = x.expand(expert.n_members, -1, -1)
    ours = expert._log_prob(every)
    z = expert.whitening.forward(every)
    normal = torch.distributions.Normal(0.0, 1.0)
    for member in range(expert.n_members):
        flow = to_nflows(expert, member)
        u, log_det = flow(z[member].T)
        theirs = normal.log_prob(u).sum(dim=1) + log_det + expert.whitening.log_det[member]
        assert torch.allclose(ours[member], theirs, atol=1e-10, rtol=0)
        back, _ = flow.inverse(u)
        assert torch.allclose(back, z[member].T, atol=1e-7)
