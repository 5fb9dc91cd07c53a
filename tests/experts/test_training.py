"""Training: stops for the right reason, keeps the best finite state, names what broke."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from amfvi.errors import AmfviWarning, FitError, UsageError
from amfvi.experts import DEFAULT, GMM, MAF, NSF, Folds, RealNVP, resolve
from amfvi.experts.training.loop import train
from amfvi.experts.training.muon import orthogonalize
from amfvi.experts.training.optimizer import EnsembleOptimizer
from amfvi.experts.training.problem import TrainingProblem
from amfvi.experts.training.settings import Training


def nll(parameters, z):
    """Each member is N(mean, 1), of one parameter."""
    return 0.5 * (z[:, 0] - parameters["mean"]).square()


def run(loss, start=3.0, **settings):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400, 1, generator=generator)
    folds = Folds(draws, torch.arange(400) % 2)
    options = Training(**{"learning_rate": 0.05, "max_steps": 2000, **settings})
    problem = TrainingProblem(
        name="shift",
        nll=loss,
        frozen_nll=loss,
        initial={"mean": torch.full((2, 1), start)},
        masks={"mean": torch.ones(1)},
        draws=draws.T.expand(2, -1, -1).contiguous(),
        folds=folds,
    )
    kept, report = train(problem, options, generator=generator)
    return kept["mean"][:, 0], report, draws


def test_each_member_finds_the_optimum_of_its_own_draws_and_says_why_it_stopped():
    means, report, draws = run(nll)
    for member, mean in enumerate(means):
        assert float(mean) == pytest.approx(float(draws[1 - member :: 2].mean()), abs=0.02)
    assert report.converged
    assert "held-out" in report.stopped_by


def test_max_steps_is_not_convergence():
    _, report, _ = run(nll, max_steps=50)
    assert (report.stopped_by, report.converged) == ("max_steps", False)
    assert report.history[-1].step == 50 + 150  # the last phase is never shorter


@pytest.mark.parametrize(
    ("rows", "batch"),
    [(10, 10), (60, 60), (300, 100), (600, 128), (8_000, 128), (40_000, 500), (10**6, 1024)],
)
def test_a_step_takes_a_few_of_few_draws_and_more_of_many(rows, batch):
    assert Training().batch_size_for(rows) == batch


def test_a_larger_batch_that_is_asked_for_is_taken():
    assert Training(batch_size=4096).batch_size_for(10**6) == 4096


def test_masked_parameters_never_move():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(200, 2, generator=generator)
    folds = Folds(draws, torch.arange(200) % 2)

    def squares(p, z):
        return (z - p["mean"][..., None]).square().sum(dim=1)

    problem = TrainingProblem(
        name="pair",
        nll=squares,
        frozen_nll=squares,
        initial={"mean": torch.full((2, 2), 0.5)},
        masks={"mean": torch.tensor([1.0, 0.0])},
        draws=draws.T.expand(2, -1, -1).contiguous(),
        folds=folds,
    )
    kept, _ = train(problem, Training(max_steps=100), generator=generator)
    assert torch.equal(kept["mean"][:, 1], torch.full((2,), 0.5))
    assert (kept["mean"][:, 0] - 0.5).abs().min() > 0.1


def test_nan_loss_names_expert_and_step_and_keeps_the_best_state():
    calls = []

    def broken(parameters, z):
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) >= 90:
                return nll(parameters, z) * float("nan")
        return nll(parameters, z)

    with pytest.warns(AmfviWarning, match="shift: non-finite loss by step 100"):
        means, report, _ = run(broken)
    assert report.best_step == 75
    assert (report.stopped_by, report.converged) == ("non-finite loss by step 100", False)
    assert torch.isfinite(means).all()


def test_no_finite_start_is_an_error():
    with pytest.raises(FitError, match="shift: no finite held-out density at the start"):
        run(nll, start=float("nan"))


def test_muon_directions_have_unit_singular_values_and_the_same_vectors():
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(5, 16, 16, generator=generator))
    singular = torch.logspace(0, -0.5, 16)
    orthogonal = orthogonalize(u @ torch.diag(singular) @ v)
    rotated = u.mT @ orthogonal @ v.mT
    assert torch.allclose(rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1)),
                          torch.zeros(()), atol=1e-3)  # fmt: skip
    diagonal = rotated.diagonal(dim1=-2, dim2=-1)
    assert (diagonal > 0.5).all()
    assert (diagonal < 1.3).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MAF(layers=0), "maf: layers must be positive, found 0"),
        (lambda: RealNVP(learning_rate=-1.0), "realnvp: learning_rate must be positive"),
        (lambda: MAF(ema_decay=1.0), "maf: ema_decay must be in"),
        (lambda: GMM(max_components=100), "gmm: max_components must be at most 64, found 100"),
        (lambda: NSF(bins=1), r"nsf: bins must be in \[2, 100\], found 1"),
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


def test_presets_stand_for_several_experts():
    assert tuple(resolve("paper")) == DEFAULT
    assert list(resolve("robust")) == [*DEFAULT, "nsf", "gmm", "tmm"]
    assert list(resolve("robust,gmm"))[-1] == "gmm-2"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("config", [MAF(max_steps=400), RealNVP(max_steps=400), NSF(max_steps=400)])
def test_a_captured_step_learns_what_an_eager_one_learns(config, curved, folded):
    folds = folded(curved(2, 4000, 0), 5)
    seed = torch.Generator().manual_seed
    on_cpu, _ = config.fit_folds(folds, generator=seed(0))
    on_gpu, _ = config.fit_folds(folds, generator=seed(0), device="cuda")
    fresh = curved(2, 10_000, 9)
    gap = on_cpu.log_prob(fresh) - on_gpu.to("cpu").log_prob(fresh)
    assert abs(float(gap.mean())) < 0.02


def test_a_step_that_cannot_be_captured_is_taken_all_the_same(monkeypatch):
    """What the class does on CUDA, with a capture that fails; the CPU takes its steps."""

    class Stream:
        def wait_stream(self, _):
            return None

    def refuse(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing")

    for name, fake in {
        "device": nullcontext, "Stream": Stream, "current_stream": Stream, "stream": nullcontext,
        "CUDAGraph": object, "graph": refuse,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    flow = RealNVP(layers=2).build(3)
    problem = TrainingProblem(
        name="realnvp", nll=flow.nll, frozen_nll=flow.nll,
        initial=flow.initial(1, torch.Generator()), masks=flow.masks,
        draws=x.T[None].contiguous(), folds=Folds.holdout(x[:200], x[200:]),
    )  # fmt: skip
    plain, refused = (
        EnsembleOptimizer(problem, Training(), torch.Generator().manual_seed(1)) for _ in range(2)
    )
    refused._is_capturable = True
    for _ in range(6):
        plain.step(1.0, 0.5)
        refused.step(1.0, 0.5)
    assert not refused._is_capturable
    for name, value in plain.averaged.items():
        assert torch.equal(value, refused.averaged[name])
        assert not torch.equal(value, problem.initial[name])
