"""What is computed once for each run of equal conditions is what each column would give."""

from __future__ import annotations

import pytest
import torch

from amfvi.experts import MDN, NLE, NSF, LogisticMAF
from amfvi.experts.repeats import at_runs, find_runs


@pytest.mark.parametrize("seed", range(5))
def test_runs_give_every_column_its_condition(seed):
    """Members have different numbers of runs."""
    generator = torch.Generator().manual_seed(seed)
    condition = torch.randint(2, (3, 2, 40), generator=generator).double()
    condition[0] = condition[0, :, :1]
    condition = condition.repeat_interleave(5, dim=2)
    found, run = find_runs(condition)
    assert found.shape[2] == int(run.max()) + 1 < 200
    assert torch.equal(at_runs(found, run), condition)
    deeper = torch.stack([found, -found], dim=1)
    assert torch.equal(at_runs(deeper, run), torch.stack([condition, -condition], dim=1))


@pytest.mark.parametrize(
    "condition",
    [
        torch.arange(10.0).view(1, 1, 10),
        torch.zeros(1, 1, 1),
        torch.zeros(1, 1, 0),
        torch.zeros(2, 1, 8, requires_grad=True),
    ],
)
def test_no_runs_where_they_would_save_nothing(condition):
    assert find_runs(condition) is None


@pytest.mark.parametrize(
    "config",
    [
        MDN(max_steps=50), LogisticMAF(max_steps=50), NSF(max_steps=50), NLE(max_steps=50),
    ],
)  # fmt: skip
def test_densities_do_not_depend_on_the_order_of_conditions(config):
    """Sorted by condition they come in runs, shuffled they do not."""
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(300, 1, generator=generator).double()
    y = c.sin() + 0.1 * torch.randn(300, 1, generator=generator).double()
    expert = config.fit(torch.cat([c, y], dim=1), given=1, folds=2)
    points = torch.cat([c[:10].repeat_interleave(50, dim=0), y[:50].repeat(10, 1)], dim=1)
    order = torch.randperm(500, generator=generator)
    found = expert.log_prob(points)
    assert torch.allclose(found[order], expert.log_prob(points[order]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", [MDN(max_steps=50), LogisticMAF(max_steps=50)])
def test_draws_in_single_precision_keep_conditions_and_parameters_far_from_zero(config, seed):
    """Both are some 1e6 with a spread of one thousandth: as single numbers all would be equal."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(400, 1, generator=generator).double()
    y = c + 0.1 * torch.randn(400, 1, generator=generator).double()
    pairs = torch.cat([1e6 + 1e-3 * c, 1e6 + 1e-3 * y], dim=1)
    expert = config.fit(pairs, given=1, folds=2)
    drawn = expert.sample_given(pairs[:1, :1].expand(2000, 1), generator)
    assert len(drawn.unique()) > 1900
    assert float((drawn.mean() - 1e6) * 1e3) == pytest.approx(float(c[0]), abs=0.15)
    assert float(drawn.std() * 1e3) == pytest.approx(0.1, abs=0.06)
