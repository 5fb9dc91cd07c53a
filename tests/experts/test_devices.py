"""Experts compute where their numbers lie; what needs a GPU is in tests/test_gpu.py.

A tensor on torch's "meta" device has a shape and no numbers. It goes with no tensor of another
device, so that it stands for one on a GPU wherever no number is read.
"""

from __future__ import annotations

import pytest
import torch

from amfvi.experts import EXPERTS, Folds

META = torch.device("meta")

KINDS = ("maf", "realnvp", "nsf", "rbig", "mdn", "noisy_mdn")
"""Kinds that read no number of a tensor on the way."""

CASES = [
    (kind, given)
    for kind in KINDS
    for given in (0, 1)
    if not (kind == "rbig" and given) and not (kind.endswith("mdn") and not given)
]


def fitted(kind, given):
    settings = {"max_layers": 5} if kind == "rbig" else {"max_steps": 25}
    rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    folds = Folds(rows, torch.arange(200) % 2, given=given)
    config = EXPERTS[kind](**settings)
    return rows, config.fit_folds(folds, generator=torch.Generator().manual_seed(1))[0]


@pytest.mark.parametrize(("kind", "given"), CASES)
def test_densities_and_draws_stay_on_the_device(kind, given):
    rows, expert = fitted(kind, given)
    moved = expert.to("meta")
    assert moved.device == META
    if getattr(moved, "reach", None) is not None:
        assert moved.reach.device == META
        moved.reach = None  # draws beyond it are counted
    assert moved.log_prob(rows.to("meta")).device == META
    generator = torch.Generator().manual_seed(0)
    draws = moved.sample_given(rows[:20, :1], generator) if given else moved.sample(20, generator)
    assert (draws.device, draws.shape) == (META, (20, 3 - given))


def test_chunks_on_an_accelerator_hold_fewer_rows_of_more_coordinates():
    _, expert = fitted("nsf", 0)
    moved = expert.to("meta")
    rows = [moved.chunk_rows]
    moved.dim = 100
    rows.append(moved.chunk_rows)
    assert rows[0] > 1_000_000 > 100_000 > rows[1] > 10_000
    assert expert.chunk_rows < 100_000
