"""Sites of models as parameters."""

from __future__ import annotations

import pytest
from torch.distributions import constraints

from amfvi.errors import UsageError
from amfvi.interop.sites import Site, density_of_sites, require_fixed_supports


def test_names_constraints_and_dimensions_go_with_the_entries():
    sites = [
        Site(name="mu", support=constraints.real, shape=()),
        Site(name="p", support=constraints.simplex, shape=(2, 3), plates={0: "row"}),
    ]
    density = density_of_sites(lambda x: x.sum(dim=1), sites)
    assert density.names[:3] == ("mu", "p[1,1]", "p[1,2]")
    assert [v.start for v in density.constraints.vectors] == [1, 4]
    assert density.variables.each[1].dims == ("row", "p_dim_1")


def test_what_changes_from_run_to_run_is_named():
    one, other = (Site(name=n, support=constraints.real, shape=()) for n in ("a", "b"))
    require_fixed_supports([one, other], [one, other])
    with pytest.raises(UsageError, match=r"depend on random values \(b\)"):
        require_fixed_supports([one], [one, other])
    with pytest.raises(UsageError, match="their order changes"):
        require_fixed_supports([one, other], [other, one])
