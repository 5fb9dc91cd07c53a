"""Whitening: unit covariance, exact inverse, right Jacobian, at any scale."""

from __future__ import annotations

import pytest
import torch

from amfvi.errors import FitError
from amfvi.experts.whitening import Whitening


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_whitened_draws_are_standard(scale, curved):
    x = (curved(3, 2000, 0) + 10) * torch.tensor([scale, 1.0, 1 / scale], dtype=torch.float64)
    whitening = Whitening.fit_pooled(x)
    z = whitening.forward(x[None])
    assert torch.allclose(z[0].mean(1), torch.zeros(3, dtype=torch.float64), atol=1e-7)
    assert torch.allclose(z[0].cov(correction=0), torch.eye(3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(whitening.inverse(z)[0], x, rtol=1e-9)
    expected = torch.linalg.slogdet(whitening.inverse_factor).logabsdet
    assert torch.allclose(whitening.log_det, expected)


def test_each_member_whitens_by_what_it_trains_on(curved, folded):
    draws = curved(2, 300, 0)
    draws[1::2] *= 3
    together = Whitening.fit(folded(draws, 2))
    for member in range(2):
        alone = Whitening.fit_pooled(draws[1 - member :: 2])
        assert torch.allclose(together.factor[member], alone.factor[0])
        assert torch.allclose(together.mean[member], alone.mean[0])


def test_collinear_columns_are_whitened_with_a_raised_diagonal(curved):
    x = curved(2, 500, 0)
    x = torch.cat([x, x[:, :1]], dim=1)
    whitening = Whitening.fit_pooled(x)
    z = whitening.forward(x[None])
    assert torch.isfinite(z).all()
    assert torch.allclose(whitening.inverse(z)[0], x, atol=1e-6)


def test_constant_column_is_named():
    with pytest.raises(FitError, match=r"column 1 .* constant"):
        Whitening.fit_pooled(torch.stack([torch.randn(9), torch.ones(9)], dim=1))


def test_draws_whose_squares_overflow_are_refused(curved):
    with pytest.raises(FitError, match=r"column 1 .* large as .*e\+200, so that squares"):
        Whitening.fit_pooled(curved(2, 300, 0) * torch.tensor([1.0, 1e200], dtype=torch.float64))
