"""The same flow as nflows modules: equal to 1e-10, in every dimension, for every member."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch

from amfvi.errors import UsageError
from amfvi.interop.nflows import to_nflows


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dim", [2, 3, *(pytest.param(d, marks=pytest.mark.slow) for d in (5, 10))])
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


def test_what_cannot_be_exported_is_named(fitted):
    with pytest.raises(UsageError, match=r"only a maf, realnvp or nsf .* found gmm"):
        to_nflows(fitted("gmm", 2)[0])
    with pytest.raises(UsageError, match="member must be in 0 … 1, found 2"):
        to_nflows(fitted("maf", 2)[0], member=2)


def test_experts_are_imported_without_nflows():
    program = "import sys, amfvi.experts; sys.exit('nflows' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_missing_nflows_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "amfvi.interop.nflows")
    for name in [name for name in sys.modules if name.partition(".")[0] == "nflows"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nflows", None)
    with pytest.raises(UsageError, match="pip install nflows"):
        importlib.import_module("amfvi.interop.nflows")
