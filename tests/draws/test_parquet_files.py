"""Parquet files: what is read and written, and what a wrong file is told."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from amfvi.draws.readers import read_draws, read_points, read_table
from amfvi.draws.writers import check_writable, write_columns
from amfvi.errors import InputError, UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = np.random.default_rng(0).normal(size=(200, 2))


def save(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "draws.parquet"


def test_what_was_written_is_read_back(path):
    names = ("mu", "L[1,2]")
    write_columns(path, ROWS, names, array_name="draws", overwrite=False)
    draws = read_draws(path)
    assert draws.names == names
    assert np.array_equal(draws.values.numpy(), ROWS)
    assert np.array_equal(read_points(path, names[::-1]), ROWS[:, ::-1])
    with pytest.raises(InputError, match="exists"):
        write_columns(path, ROWS, names, array_name="draws", overwrite=False)
    write_columns(path, ROWS[:120], names, array_name="draws", overwrite=True)
    assert len(read_draws(path)) == 120


@pytest.mark.parametrize("kind", ["weight", "log_weight"])
def test_chains_draws_and_weights(path, kind):
    chain, draw = np.tile([2, 1], 100), np.repeat(np.arange(100), 2)
    weight = np.random.default_rng(1).uniform(0.5, 1.5, size=200)
    column = {kind: np.log(weight) if kind == "log_weight" else weight}
    save(path, chain=chain, draw=draw, a=ROWS[:, 0], b=ROWS[:, 1].astype("f4"), **column)
    draws = read_draws(path)
    assert draws.names == ("a", "b")
    assert draws.chain.tolist() == [0] * 100 + [1] * 100
    assert np.array_equal(draws.values[:, 0], np.concatenate([ROWS[1::2, 0], ROWS[::2, 0]]))
    expected = np.concatenate([weight[1::2], weight[::2]]) / weight.mean()
    assert np.allclose(draws.sample_weight, expected)


def test_a_data_frame_with_an_index(path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": ROWS[:, 0], "b": ROWS[:, 1]})[::-1]
    frame.to_parquet(path)
    draws = read_draws(path)
    assert draws.names == ("a", "b")
    assert np.array_equal(draws.values.numpy(), ROWS[::-1])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ROWS[:, 0], "b": ["x"] * 200}, "column 'b' holds string, expected numbers"),
        ({"a": [[1.0, 2.0]] * 200}, "column 'a' holds list<.*>, expected numbers"),
        ({"a": ROWS[:, 0] > 0}, "column 'a' holds bool, expected numbers"),
        ({"a": ROWS[:0, 0]}, "columns and no rows"),
        ({}, "a table without columns"),
        ({"chain": np.arange(200)}, "no parameter columns"),
        ({"a": [None, *ROWS[1:, 0]]}, r"1 of 200 rows hold NaN or infinity \(first at row 0"),
        ({"a": [None, *range(1, 200)]}, r"1 of 200 rows hold NaN or infinity \(first at row 0"),
        ({"a": ROWS[:, 0], "weight": ROWS[:, 1]}, "weights must be finite and non-negative"),
    ],
)
def test_what_is_wrong_with_a_table(path, columns, message):
    save(path, **columns)
    with pytest.raises(InputError, match=message) as error:
        read_draws(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_empty_file_and_garbage(path):
    path.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        read_draws(path)
    path.write_bytes(b"no Parquet at all")
    with pytest.raises(InputError, match=r"cannot be read \(ArrowInvalid") as error:
        read_draws(path)
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_read_or_refused(path):
    save(path, a=ROWS[:, 0], b=ROWS[:, 1])
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        content = bytearray(sound)
        for place in random.integers(len(content), size=random.integers(1, 4)):
            content[-1 - place // 4] = random.integers(256)
        if random.random() < 0.3:
            content = content[: random.integers(1, len(content))]
        path.write_bytes(bytes(content))
        try:
            read_table(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all(message.startswith(f"{path}: ") for message in messages)


def test_a_table_that_is_too_large_is_refused(path, monkeypatch):
    save(path, a=ROWS[:, 0])
    monkeypatch.setattr("amfvi.draws.table.MAX_UNPACKED", 1000)
    with pytest.raises(InputError, match="the table unpacks to"):
        read_table(path)


def test_a_missing_library_is_named(path, monkeypatch):
    save(path, a=ROWS[:, 0])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'amfvi\[parquet\]'"):
        read_draws(path)
    with pytest.raises(UsageError, match=r"pip install 'amfvi\[parquet\]'"):
        check_writable(path.with_name("new.parquet"), overwrite=False)
