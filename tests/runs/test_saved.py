"""Run directories read back: what is missing, older or wrong in them is one clear line."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from amfvi.draws.readers import read_arrays
from amfvi.errors import InputError
from amfvi.runs import saved as saved_module
from amfvi.runs.run import run
from amfvi.runs.saved import SavedRun
from amfvi.runs.settings import InputSettings, RunSettings
from amfvi.two_stage.options import FitOptions


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    path, model = folder / "run", folder / "normal.py"
    model.write_text("def log_prob(x):\n    return -0.5 * x.square().sum(dim=1)\n")
    options = FitOptions(experts="gmm", folds=2, n_draws=300, max_refinements=0)
    source = InputSettings(log_density=f"{model}:log_prob", dim=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        run(RunSettings(input=source, options=options, out=str(path), figures=False))
    return path


@pytest.fixture
def copy(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run"


def change(file, edit):
    record = json.loads(file.read_text())
    edit(record)
    file.write_text(json.dumps(record))


def test_a_run_reads_back(written):
    saved = SavedRun.open(written)
    assert saved.config["dim"] == saved.metrics["dim"] == 1
    scores = saved.metrics["mixture"]
    assert saved.evaluate().to_json()["mixture"] == scores
    assert saved.draws()[0].shape == (10_000, 1)


@pytest.mark.parametrize("name", ["config", "metrics"])
@pytest.mark.parametrize("schema", [2, "3", None])
def test_another_schema_is_named(copy, name, schema):
    change(copy / f"{name}.json", lambda record: record.update(schema=schema))
    with pytest.raises(InputError, match=rf"{name}.json: .*\(schema {schema!r}\); fit again"):
        getattr(SavedRun.open(copy), name)


@pytest.mark.parametrize("key", saved_module.CONFIG_TYPES)
def test_a_key_that_config_lacks_is_named(copy, key):
    change(copy / "config.json", lambda record: record.pop(key))
    with pytest.raises(InputError, match=f"config.json: .*no {key!r}"):
        SavedRun.open(copy).evaluate()


@pytest.mark.parametrize("key", saved_module.METRICS_TYPES)
def test_a_key_that_metrics_lack_is_named(copy, key):
    change(copy / "metrics.json", lambda record: record.pop(key))
    with pytest.raises(InputError, match=f"metrics.json: .*no {key!r}"):
        _ = SavedRun.open(copy).metrics


@pytest.mark.parametrize(
    ("part", "key"), [(part, key) for part, keys in saved_module.PARTS.items() for key in keys]
)
def test_a_key_that_a_part_of_metrics_lacks_is_named(copy, part, key):
    change(copy / "metrics.json", lambda record: record[part].pop(key))
    with pytest.raises(InputError, match=f"no {key!r} in {part!r}"):
        _ = SavedRun.open(copy).metrics


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config", "seed", "seven"), ("config", "seed", True), ("config", "folds", None),
        ("config", "target", 3), ("config", "chains", "yes"), ("metrics", "experts", []),
        ("metrics", "warnings", None), ("metrics", "n_test", "many"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named(copy, name, key, value):
    change(copy / f"{name}.json", lambda record: record.update({key: value}))
    with pytest.raises(InputError, match=rf"not a file of this version .* as '{key}'\)"):
        getattr(SavedRun.open(copy), name)


def test_an_expert_without_its_weight_is_named(copy):
    change(copy / "metrics.json", lambda record: record["experts"]["gmm"].pop("weight"))
    with pytest.raises(InputError, match="no 'weight' in 'expert gmm'"):
        _ = SavedRun.open(copy).metrics


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"nonsense"])
def test_damaged_draws_are_named(copy, damage):
    (copy / "draws.npz").write_bytes(damage)
    with pytest.raises(InputError, match=r"draws\.npz: "):
        SavedRun.open(copy).draws()


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("metrics", lambda record: record["mixture"].update(nll=0.5)),
        ("metrics", lambda record: record.update(warnings=[])),
        ("metrics", lambda record: record["density"].update(verdict="trust", extra=1)),
        ("config", lambda record: record.update(seed=7)),
        ("config", lambda record: record.update(metrics_sha256="0")),
    ],
)
def test_an_edited_record_is_refused(copy, name, edit):
    change(copy / f"{name}.json", edit)
    with pytest.raises(InputError, match=rf"{name}.json: damaged or edited"):
        getattr(SavedRun.open(copy), name)


def read_summary(saved):
    return saved.draws()[0].tobytes(), saved.draws()[1], saved.metrics


def read_sample(saved):
    return {key: array.tobytes() for key, array in read_arrays(saved.path / "sample.npz").items()}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("metrics.json", read_summary), ("config.json", lambda saved: saved.config),
        ("draws.npz", read_summary), ("sample.npz", read_sample),
    ],
)  # fmt: skip
def test_a_flipped_bit_of_a_run_is_an_error_or_changes_nothing(copy, name, read):
    saved, path, random = SavedRun.open(copy), copy / name, np.random.default_rng(0)
    expected, content, messages = read(saved), path.read_bytes(), []
    # The headers and the directory of an archive are small beside its arrays.
    places = [*random.integers(8 * len(content), size=120), *random.integers(8 * 250, size=60)]
    places += [8 * len(content) - 1 - place for place in random.integers(8 * 400, size=60)]
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(damaged))
        try:
            assert read(saved) == expected
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(str(path) in message for message in messages)


def without(path, key):
    arrays = read_arrays(path)
    np.savez(path, **{name: array for name, array in arrays.items() if name != key})


@pytest.mark.parametrize("key", ["draws", "weight", "test"])
def test_a_sample_that_lacks_an_array_is_named(copy, key):
    without(copy / "sample.npz", key)
    with pytest.raises(InputError, match=f"sample.npz: holds no array {key!r}"):
        SavedRun.open(copy).evaluate()


def test_a_damaged_sample_is_named(copy):
    """It was a traceback of zipfile's own exception."""
    path = copy / "sample.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"sample\.npz: cannot be read \(.*CRC"):
        SavedRun.open(copy).evaluate()
