"""The timing scripts run from end to end, small, and their figures are positive."""

from __future__ import annotations

import re

import pytest
import torch

from amfvi.mixture import Mixture
from amfvi.saving import save
from experiments.timing import frozen_speed, gpu, profile_fit, throughput


def rates(out):
    """Numbers of each line of the printed tables, by its first entry."""
    lines = (re.split(r"\s*\|\s*", line.strip("| ")) for line in out.splitlines() if "|" in line)
    return {
        name: [float(entry.replace(",", "")) for entry in entries if entry != "–"]
        for name, *entries in lines
        if entries and re.fullmatch(r"[\d,.]+|–", entries[0])
    }


def test_throughput(tmp_path, fitted, capsys):
    experts = {kind: fitted(kind, 2)[0] for kind in ("maf", "rbig")}
    save(Mixture(experts, [0.5, 0.5]), tmp_path / "model")
    throughput.main([str(tmp_path / "model"), "--points", "3000", "--device", "cpu"])
    out = capsys.readouterr().out
    by_name = rates(out)
    assert list(by_name) == ["maf", "rbig", "mixture"]
    assert all(len(of) == 2 and min(of) > 0 for of in by_name.values())
    assert float(re.search(r"peak memory of the process: ([\d.]+) GiB", out)[1]) > 0


@pytest.mark.slow
def test_frozen_speed(capsys):
    frozen_speed.main(["--points", "2000"])
    out = capsys.readouterr().out
    by_name = rates(out)
    assert {"amfvi", "nflows, same weights", "nflows, as it comes"} <= by_name.keys()
    assert by_name["amfvi"][1::2] == [1.0, 1.0]
    assert all(min(of) > 0 for of in by_name.values())
    assert float(re.search(r"the mixture takes ([\d.]+) times", out)[1]) > 0


@pytest.mark.usefixtures("small_metrics")
@pytest.mark.slow
def test_profile_fit():
    parts = profile_fit.profile_run("bimodal", seed=0, n_draws=200)
    assert parts["in all"] == pytest.approx(
        sum(parts[name] for name in ("stage one", "stage two", "metrics", "figures", "saving",
                                     "the rest"))
    )  # fmt: skip
    assert parts["figures"] > 0
    assert parts["saving"] > 0
    assert parts["the rest"] > 0


def test_a_function_that_was_not_called_is_not_nothing():
    profile = profile_fit.cProfile.Profile()
    profile.runcall(sum, [1])
    with pytest.raises(KeyError):
        profile_fit._cumulative_seconds(profile, profile_fit.import_seconds)


def test_gpu(capsys, monkeypatch):
    """Whole where there is a GPU; else one line that says so."""
    monkeypatch.setattr(gpu, "DIMENSIONS", (2,))
    monkeypatch.setattr(gpu, "N_STEPS", (25, 50))
    monkeypatch.setattr(gpu, "N_POINTS", 2000)
    monkeypatch.setattr(gpu, "FITS", ((2, 500),))
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            gpu.main([])
        assert "no CUDA device found" in capsys.readouterr().err
        return
    gpu.main([])
    out = capsys.readouterr().out
    for part in gpu.PARTS:
        assert f'{part} {{"' in out
