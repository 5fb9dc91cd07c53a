"""Training: stops for the right reason, keeps the best finite state, names what broke."""

from __future__ import annotations

import pytest
import torch
from amfvi.experts import MAF, RealNVP, resolve
from amfvi.experts.training import Training, train
from torch import nn

from amfvi.errors import AmfviWarning, FitError, UsageError


class Shift(nn.Module):
    """A model of one parameter, N(mean, 1), whose loss can be made to fail."""

    def __init__(self, start: float = 3.0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([start]))


def nll(flow: Shift, z: torch.Tensor) -> torch.Tensor:
    return 0.5 * (z[:, 0] - flow.mean).square()


def run(flow, loss, **settings):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 1, generator=generator)
    options = Training(**{"learning_rate": 0.05, "max_steps": 2000, **settings})
    return train("shift", flow, loss, z, z, options, generator=generator), z


def test_finds_the_optimum_and_says_why_it_stopped():
    flow = Shift()
    report, z = run(flow, nll)
    assert float(flow.mean.detach()) == pytest.approx(float(z.mean()), abs=0.02)
    assert report.converged
    assert "held-out" in report.stopped_by


def test_max_steps_is_not_convergence():
    report, _ = run(Shift(), nll, max_steps=50)
    assert (report.stopped_by, report.converged) == ("max_steps", False)
    assert report.history[-1].step == 50


def test_nan_loss_names_expert_and_step_and_keeps_the_best_state():
    flow, calls = Shift(), []

    def broken(model, z):
        if z.requires_grad or torch.is_grad_enabled():
            calls.append(1)
            if len(calls) >= 90:
                return nll(model, z) * float("nan")
        return nll(model, z)

    with pytest.warns(AmfviWarning, match="shift: non-finite loss at step 90"):
        report, _ = run(flow, broken)
    assert report.best_step == 75
    assert not report.converged
    assert torch.isfinite(flow.mean).all()


def test_no_finite_start_is_an_error():
    with pytest.raises(FitError, match="shift: no finite held-out density at the start"):
        run(Shift(float("nan")), nll)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MAF(layers=0), "maf: layers must be positive, found 0"),
        (lambda: RealNVP(learning_rate=-1.0), "realnvp: learning_rate must be positive"),
        (lambda: MAF(averaging=1.0), "maf: averaging must be in"),
        (lambda: resolve(["rbjg"]), "unknown expert 'rbjg'; did you mean rbig"),
        (lambda: resolve([]), "no experts given"),
        (lambda: resolve([3]), "an expert is a name or a config, found int"),
    ],
)
def test_bad_settings_fail_at_construction(build, message):
    with pytest.raises(UsageError, match=message):
        build()


def test_second_of_a_kind_is_numbered_and_mappings_keep_their_names():
    wide = MAF(hidden_features=64)
    assert list(resolve(["realnvp", "realnvp", wide])) == ["realnvp", "realnvp-2", "maf"]
    assert resolve({"wide": wide, "plain": "maf"}) == {"wide": wide, "plain": MAF()}
