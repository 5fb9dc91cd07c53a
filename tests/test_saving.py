"""Saved models: the same numbers in another process, and no damage passes unnoticed."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import amfvi
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.errors import InputError
from amfvi.files import file_hash
from amfvi.mixture import Mixture
from amfvi.posterior import Posterior
from amfvi.saving import read_model, save

SCRIPT = """
import sys, numpy as np, torch, amfvi
mixture = amfvi.load(sys.argv[1])
points = np.load(sys.argv[2])
draws = mixture.sample((40,), torch.Generator().manual_seed(7))
np.savez(sys.argv[3], log_prob=mixture.log_prob(points), draws=draws)
"""


@pytest.fixture
def mixture(fitted):
    experts = {kind: fitted(kind, 2)[0] for kind in ("maf", "realnvp", "rbig")}
    constraints = Constraints((0.0, -math.inf), (math.inf, math.inf))
    transform = UnconstrainingTransform(constraints, (2.0, math.inf))
    names = ("tau", "mu")
    mixture = Mixture(experts, [0.2, 0.3, 0.5], transform=transform, names=names, scale=[1.5, 2.0])
    return Posterior.from_mixture(mixture)


@pytest.fixture
def saved(mixture, tmp_path):
    return mixture.save(tmp_path / "model")


def test_a_fresh_process_gets_the_same_numbers(mixture, saved, tmp_path):
    points = mixture.sample((200,), torch.Generator().manual_seed(1)).numpy()
    np.save(tmp_path / "points.npy", points)
    subprocess.run(
        [sys.executable, "-c", SCRIPT, saved, tmp_path / "points.npy", tmp_path / "out.npz"],
        check=True,
        cwd=tmp_path,
    )
    with np.load(tmp_path / "out.npz") as out:
        assert np.array_equal(out["log_prob"], mixture.log_prob(points).numpy())
        seven = torch.Generator().manual_seed(7)
        assert np.array_equal(out["draws"], mixture.sample((40,), seven).numpy())


def test_everything_else_comes_back(mixture, saved):
    again = amfvi.load(saved)
    assert again.names == ("tau", "mu")
    assert again.constraints == mixture.constraints
    assert again.transform == mixture.transform
    assert torch.equal(again.scale, mixture.scale)
    assert torch.equal(again.weights, mixture.weights)
    assert [e.config for e in again.experts.values()] == [
        e.config for e in mixture.experts.values()
    ]
    assert again.summary is None


def test_two_loads_do_not_repeat_each_others_draws_unless_seeded(saved):
    first, second = amfvi.load(saved), amfvi.load(saved)
    assert not torch.equal(first.sample((5,)), second.sample((5,)))
    torch.manual_seed(3)
    draws = first.sample((5,))
    torch.manual_seed(3)
    assert torch.equal(draws, second.sample((5,)))


def flipped(content, random, bits=1):
    """The bytes with this many of their bits flipped at random."""
    damaged = bytearray(content)
    for place in random.choice(8 * len(content), size=bits, replace=False):
        damaged[place // 8] ^= 1 << place % 8
    return bytes(damaged)


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors"])
def test_a_flipped_bit_is_an_error_or_changes_nothing(mixture, saved, name, bits):
    """Wherever the bit lies: in a number, a name, a bound, a setting, a key or a hash."""
    points = mixture.sample((20,), torch.Generator().manual_seed(1))
    expected = mixture.log_prob(points)
    path, random = saved / name, np.random.default_rng(bits)
    content, messages = path.read_bytes(), []
    for _ in range(200):
        path.write_bytes(flipped(content, random, bits))
        try:
            loaded = amfvi.load(saved)
        except InputError as error:
            messages.append(str(error))
        else:
            assert torch.equal(loaded.log_prob(points), expected)
            assert (loaded.names, loaded.constraints) == (mixture.names, mixture.constraints)
            assert torch.equal(loaded.scale, mixture.scale)
    assert len(messages) >= 190  # all but those between two numbers
    assert all(str(saved) in message and "\n" not in message for message in messages)


def test_a_manifest_of_another_layout_is_the_same(mixture, saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps(dict(reversed(manifest.items()))))
    points = mixture.sample((20,), torch.Generator().manual_seed(1))
    assert torch.equal(amfvi.load(saved).log_prob(points), mixture.log_prob(points))


def test_the_tensors_of_another_model_and_zeros_are_refused(mixture, saved, tmp_path):
    other = mixture.__class__.from_mixture(Mixture({"gmm": mixture.experts["maf"]}, [1.0]))
    other.save(tmp_path / "other")
    mine, theirs = saved / "tensors.safetensors", tmp_path / "other" / "tensors.safetensors"
    content = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(InputError, match="its SHA-256 is not the one"):
        amfvi.load(saved)
    mine.write_bytes(content)
    for name in load_file(mine):
        tensors = load_file(mine)
        tensors[name].zero_()
        save_file(tensors, mine)
        with pytest.raises(InputError, match="its SHA-256 is not the one"):
            amfvi.load(saved)
        mine.write_bytes(content)


def test_saving_never_overwrites_unasked_nor_what_is_not_a_model(mixture, saved, tmp_path):
    before = (saved / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="exists; choose another directory"):
        mixture.save(saved)
    mixture.save(saved, overwrite=True)
    assert (saved / "manifest.json").read_bytes() == before
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="not made by amfvi; not replaced"):
        mixture.save(precious, overwrite=True)
    assert (precious / "chapter.tex").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis"]


@pytest.mark.parametrize("failing_call", [1, 2])
def test_an_interrupt_while_replacing_loses_nothing(mixture, saved, monkeypatch, failing_call):
    from pathlib import Path

    calls, rename = [], Path.rename

    def interrupted(self, target):
        calls.append(self)
        if len(calls) == failing_call:
            raise KeyboardInterrupt
        return rename(self, target)

    before = (saved / "manifest.json").read_bytes()
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mixture.save(saved, overwrite=True)
    monkeypatch.undo()
    assert (saved / "manifest.json").read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def edit_manifest(**changes):
    def edit(path):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))

    return edit


def edit_tensors(change):
    def edit(path):
        tensors = load_file(path / "tensors.safetensors")
        change(tensors)
        save_file(tensors, path / "tensors.safetensors")
        edit_manifest(tensors_sha256=file_hash(path / "tensors.safetensors"))(path)

    return edit


def cut(name, size):
    def edit(path):
        (path / name).write_bytes((path / name).read_bytes()[:size])

    return edit


def first_expert(**changes):
    def edit(path):
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["experts"][0]["config"].update(changes)
        (path / "manifest.json").write_text(json.dumps(manifest))

    return edit


def replace_text(old, new):
    def edit(path):
        text = (path / "manifest.json").read_text()
        assert text.count(old) >= 1
        (path / "manifest.json").write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    "change",
    [
        replace_text("tau", "rho"),
        edit_manifest(weights=[0.5, 0.2, 0.3]),
        edit_manifest(scale=[1.5, 2.5]),
        edit_manifest(softplus_scales=[3.0, None]),
        edit_manifest(metadata={"diagnostics": {}}),
        edit_manifest(unknown=1),
        edit_manifest(content_sha256="0" * 64),
        first_expert(patience=3),
    ],
)
def test_an_edited_manifest_is_refused(saved, change):
    change(saved)
    with pytest.raises(InputError, match=r"manifest\.json: damaged or edited: its content"):
        amfvi.load(saved)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut("tensors.safetensors", 5000), "damaged or cut short"),
        (cut("tensors.safetensors", 0), "damaged or cut short"),
        (cut("manifest.json", 60), "not readable as JSON"),
        (replace_text("{", '{"weights": [1.0, 0.0, 0.0],'), "a key stands twice"),
        (replace_text("mu", "m\\ud800"), "damaged or edited"),
        (replace_text('"content_sha256"', '"content_sha257"'), "damaged or edited"),
        (lambda p: (p / "manifest.json").write_bytes(b'{"schema": 5, "a": "\xff"}'), "as JSON"),
        (replace_text("{", '{"a": ' + "[" * 900 + "]" * 900 + ","), "damaged or edited"),
        (replace_text("{", '{"a": ' + "[" * 10**5 + "]" * 10**5 + ","), "as JSON"),
        (lambda p: (p / "manifest.json").write_text("[]"), "expected a JSON object, found list"),
        (lambda p: (p / "manifest.json").unlink(), "manifest.json: no such file"),
        (lambda p: (p / "tensors.safetensors").unlink(), "tensors.safetensors: no such file"),
        (edit_manifest(schema=99), "schema 99 is not one this version"),
        (edit_manifest(schema=None), "schema None"),
        (edit_manifest(weights=[0.5, 0.5]), "3 non-negative numbers"),
        (edit_manifest(weights=[0.5, 0.6, 0.7]), "sum to 1"),
        (edit_manifest(weights="abc"), "not a valid manifest|sum to 1"),
        (
            edit_manifest(
                constraints={"lower": [None] * 3, "upper": [None] * 3, "vectors": []},
                softplus_scales=[None] * 3,
            ),
            "shape",
        ),
        (edit_manifest(softplus_scales=[0.0, None]), "softplus scales must be 2 positive"),
        (edit_manifest(softplus_scales=[1.0]), "softplus scales must be 2 positive"),
        (edit_manifest(scale=[1.0]), "scale must be 2 finite positive numbers"),
        (edit_manifest(tensors_sha256="0" * 64), "damaged: its SHA-256"),
        (edit_manifest(constraints="two"), "not a valid manifest"),
        (edit_manifest(schema=4), "schema 4 is not one this version"),
        (edit_manifest(names=["tau"]), "1 names"),
        (edit_manifest(experts=[{"name": "a"}]), "unexpected tensor|not a valid manifest"),
        (first_expert(kind="mafia"), "unknown expert 'mafia'; did you mean maf"),
        (first_expert(hidden_features=8), "shape"),
        (first_expert(width=8), "unknown setting of maf 'width'"),
        (edit_tensors(lambda t: t.pop("0.mean")), "tensor 'mean' is missing"),
        (edit_tensors(lambda t: t.update({"0.extra": torch.ones(1)})), "unexpected tensor"),
        (edit_tensors(lambda t: t.update({"9.mean": torch.ones(2)})), "unexpected tensor '9.mean'"),
        (
            edit_tensors(lambda t: t.update({"0.mean": torch.ones(5)})),
            r"'mean' has shape \(5,\), expected",
        ),
        (edit_tensors(lambda t: t["2.x"].fill_(math.nan)), "NaN or infinity"),
        (edit_tensors(lambda t: t["2.x"].fill_(1.0)), "is not increasing"),
        (edit_tensors(lambda t: t["2.rotations"].fill_(1.0)), "has no rotation"),
        (edit_tensors(lambda t: t["2.knots"].fill_(-1)), "knot count"),
        (edit_tensors(lambda t: t["0.factor"].zero_()), "whitening"),
    ],
)
def test_damage_is_named_in_one_line(saved, damage, message):
    damage(saved)
    with pytest.raises(InputError, match=message) as error:
        amfvi.load(saved)
    assert str(saved) in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model or run directory"):
        amfvi.load(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"manifest.json: no such file"):
        amfvi.load(tmp_path)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_a_fit_to_gaussian_draws_is_read_back(dim, seed, tmp_path):
    """A Gaussianization of Gaussian draws may keep no layer, and could not be read back."""
    draws = torch.randn(2000, dim, generator=torch.Generator().manual_seed(seed)).double()
    posterior = amfvi.fit(draws, experts=["rbig", "gmm", "tmm"], folds=2, seed=seed)
    restored = amfvi.load(posterior.save(tmp_path / "model"), device=posterior.device)
    assert torch.equal(restored.log_prob(draws), posterior.log_prob(draws))
    generators = (torch.Generator().manual_seed(1) for _ in range(2))
    same = [q.sample((20,), g) for q, g in zip((posterior, restored), generators, strict=True)]
    assert torch.equal(*same)


def test_metadata_of_every_kind_is_read_back(mixture, tmp_path):
    """Keys that are numbers, and what JSON has no word for, are sealed as they will be read."""
    metadata = {2: "two", 10: (1.5, math.nan), "a": {"10": -0.0, "9": 1e-300}}
    path = save(mixture, tmp_path / "model", metadata=metadata)
    assert read_model(path).metadata == {
        "2": "two", "10": [1.5, None], "a": {"10": -0.0, "9": 1e-300},
    }  # fmt: skip
