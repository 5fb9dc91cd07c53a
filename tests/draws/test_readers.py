"""Files of draws: what is read, and what a wrong file is told."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from amfvi.draws import readers
from amfvi.draws.readers import columns_for, read_draws, read_table
from amfvi.errors import InputError, UsageError

ROWS = np.random.default_rng(0).normal(size=(200, 2))


def csv_text(header="a,b", rows=ROWS):
    return header + "\n" + "\n".join(",".join(map(repr, row)) for row in rows.tolist()) + "\n"


def write(tmp_path, text, name="draws.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        csv_text(),
        csv_text("\ufeffa,b"),
        csv_text('"a", "b"'),
        csv_text('"a";"b"').replace(",", ";"),
        csv_text().replace("\n", "\r\n"),
        csv_text().replace(",", ";"),
        csv_text().replace(",", "\t"),
        "# made by a sampler\n" + csv_text() + "# done\n\n",
    ],
    ids=["plain", "bom", "quoted", "both", "crlf", "semicolon", "tab", "comments"],
)
def test_dialects_of_csv(tmp_path, text):
    draws = read_draws(write(tmp_path, text))
    assert draws.names == ("a", "b")
    assert np.array_equal(draws.values.numpy(), ROWS)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quote", ['"', ""])
@pytest.mark.parametrize(
    "names",
    [("L[1,1]", "L[1,2]"), ("mu", "L[2,1]"), ("L[1,2,3]",), ("f(1,2)", "b{1,2}"), ("x (s)", "y")],
)
def test_a_comma_in_brackets_is_part_of_a_name(tmp_path, names, quote, delimiter):
    header = delimiter.join(f"{quote}{name}{quote}" for name in names)
    rows = "\n".join(delimiter.join(map(repr, row[: len(names)])) for row in ROWS.tolist())
    draws = read_draws(write(tmp_path, f"{header}\n{rows}\n"))
    assert draws.names == names
    assert np.array_equal(draws.values.numpy(), ROWS[:, : len(names)])


@pytest.mark.parametrize(
    "names", ["chain,draw,a,b", ".chain,.draw,a,b", "Chain,Draw,a,b", "CHAIN,.Draw,a,b"]
)
def test_chain_and_draw_are_indices_and_order_the_rows(tmp_path, names):
    index = np.stack([np.tile([2, 1], 100), np.repeat(np.arange(100), 2)], axis=1)
    draws = read_draws(write(tmp_path, csv_text(names, np.column_stack([index, ROWS]))))
    assert draws.names == ("a", "b")
    assert draws.chain.tolist() == [0] * 100 + [1] * 100
    assert np.array_equal(draws.values.numpy(), np.concatenate([ROWS[1::2], ROWS[::2]]))


def test_npy_and_npz(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    np.savez(tmp_path / "one.npz", anything=ROWS)
    np.savez(tmp_path / "named.npz", draws=ROWS, names=np.array(["u", "v"]), spare=np.ones(3))
    np.savez(tmp_path / "columns.npz", u=ROWS[:, 0], v=ROWS[:, 1], chain=np.repeat([0, 1], 100))
    for name in ("a.npy", "one.npz", "named.npz", "columns.npz"):
        assert np.array_equal(read_draws(tmp_path / name).values.numpy(), ROWS)
    assert read_draws(tmp_path / "named.npz").names == ("u", "v")
    np.savez(tmp_path / "capitals.npz", Draws=ROWS, Names=np.array(["u", "v"]))
    assert read_draws(tmp_path / "capitals.npz").names == ("u", "v")
    columns = read_draws(tmp_path / "columns.npz")
    assert columns.names == ("u", "v")
    assert int(columns.chain.max()) == 1


@pytest.mark.parametrize(
    "name",
    ["weight", "Weight", "WEIGHTS", "log_weight", "Log_Weights", "Log weight", "LOG-WEIGHTS"],
)
def test_weights_are_known_by_their_name(tmp_path, name):
    weights = np.random.default_rng(1).uniform(0.5, 1.5, size=200)
    column = np.log(weights) if "log" in name.lower() else weights
    path = write(tmp_path, csv_text(f"a,b,{name}", np.column_stack([ROWS, column])))
    np.savez(tmp_path / "draws.npz", draws=ROWS, **{name: column})
    for draws in (read_draws(path), read_draws(tmp_path / "draws.npz")):
        assert draws.dim == 2
        assert np.allclose(draws.sample_weight.numpy(), weights / weights.mean())


def test_names_and_weights_of_the_caller(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    weights = np.random.default_rng(1).uniform(0.5, 1.5, size=200)
    draws = read_draws(tmp_path / "a.npy", names=["mu", "tau"], sample_weight=weights)
    assert draws.names == ("mu", "tau")
    assert np.allclose(draws.sample_weight.numpy(), weights / weights.mean())
    path = write(tmp_path, csv_text("a,weight", np.abs(ROWS)))
    with pytest.raises(UsageError, match="has weights of its own"):
        read_draws(path, sample_weight=weights)


def cell(row, text):
    lines = csv_text().splitlines()
    lines[row] = text
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("a,b\n", "a header and no rows"),
        (csv_text().split("\n", 1)[1], "line 1 holds numbers where a header was expected"),
        (csv_text("a,"), "column 2 of the header has no name"),
        (csv_text("a,a"), "two columns are called 'a'"),
        (cell(7, "1.0,abc"), "line 8, column 'b': found 'abc', expected a number"),
        (cell(7, "1.0,"), "line 8, column 'b': found an empty cell"),
        (cell(7, "1.0"), "line 8 has 1 cells, the header has 2"),
        (cell(7, "1,2,3"), "line 8 has 3 cells, the header has 2"),
        (csv_text("a,b,c"), "line 2 has 2 cells, the header has 3"),
        (cell(7, "nan,1"), r"1 of 200 rows hold NaN or infinity \(first at row 6"),
        (csv_text("chain,draw"), "no parameter columns"),
        (csv_text("chain,.chain"), "more than one chain column"),
        (csv_text("chain,Chain"), "more than one chain column"),
        (csv_text("weight,log_weight"), "found both weight and log_weight"),
        (csv_text("a,weight"), "weights must be finite and non-negative"),
        (b"\xff\xfe\x00a,b\n1,2\n", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_csv(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as error:
        read_draws(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def header_alone(claimed_rows):
    """The header of an NPY file that claims far more than it holds."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (claimed_rows, 2)}
    )
    return file.getvalue()


def archive(content, name="draws.npy"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, content)
    return buffer.getvalue()


def bomb(claimed_rows):
    return archive(header_alone(claimed_rows))


def encrypted():
    """An archive whose member is flagged as encrypted, in its own and the central header."""
    content = bytearray(archive(b"secret"))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def array_bytes(save, array):
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", array_bytes(np.save, np.array([{}], dtype=object)), "pickled"),
        ("a.npz", array_bytes(np.savez, np.array([{}], dtype=object)), "pickled"),
        ("a.npy", array_bytes(np.save, ROWS)[:900], "cannot be read"),
        ("a.npz", array_bytes(np.savez, ROWS)[:900], "cannot be read"),
        ("a.npy", b"no array at all", "cannot be read|pickled"),
        ("a.npy", header_alone(10**12), "the array is cut off"),
        ("a.npz", encrypted(), "is encrypted"),
        ("a.npz", archive(b"not an array", "readme.txt"), "'readme.txt' is not an array"),
        ("a.npz", bomb(10**12), "unpacks to .* GiB, the limit is 4"),
        ("a.npz", array_bytes(lambda b, a: np.savez(b, u=a, v=a[:5]), ROWS), "expected an array"),
        ("a.npy", array_bytes(np.save, ROWS + 1j), "dtype complex128"),
        ("a.npy", array_bytes(np.save, ROWS.reshape(2, 100, 2)), "pass chains=True"),
        (
            "a.npz",
            array_bytes(lambda b, a: np.savez(b, draws=a, weights=a[:5, 0]), ROWS),
            "one entry",
        ),
        (
            "a.npz",
            array_bytes(lambda b, a: np.savez(b, draws=a, chain=a[:5, 0]), ROWS),
            "one entry",
        ),
        (
            "a.txt",
            b"a b\n1 2\n",
            r"unknown kind of file '.txt', expected .csv, .npy, .npz, .parquet or .nc",
        ),
    ],
    # By what is said: the bytes of an archive hold the time, and processes collect side by side.
    ids=lambda value: value if isinstance(value, str) else "content",
)
def test_what_is_wrong_with_an_array_file(tmp_path, name, content, message):
    path = write(tmp_path, content, name)
    with pytest.raises(InputError, match=message) as error:
        read_draws(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", ["csv", "npy", "npz"])
def test_a_damaged_file_is_read_or_refused(tmp_path, suffix):
    """Random bytes changed or cut off: never another error than an InputError."""
    save = {"npy": np.save, "npz": np.savez_compressed}
    sound = csv_text().encode() if suffix == "csv" else array_bytes(save[suffix], ROWS)
    random = np.random.default_rng(0)
    messages = []
    for _ in range(400):
        content = bytearray(sound)
        reach = len(content) if random.random() < 0.5 else 150
        for place in random.integers(reach, size=random.integers(1, 4)):
            content[place] = random.integers(256)
        if random.random() < 0.3:
            content = content[: random.integers(1, len(content))]
        path = write(tmp_path, bytes(content), f"a.{suffix}")
        try:
            read_table(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all(message.startswith(f"{path}: ") for message in messages)


@pytest.mark.parametrize("suffix", ["csv", "npy", "npz"])
@pytest.mark.parametrize("bug", [RuntimeError, MemoryError, AttributeError, KeyError])
def test_a_bug_of_a_reader_is_not_blamed_on_the_file(tmp_path, monkeypatch, suffix, bug):
    def broken(path):
        raise bug("a mistake")

    monkeypatch.setitem(readers.READERS, f".{suffix}", broken)
    with pytest.raises(bug, match="a mistake"):
        read_table(write(tmp_path, b"content", f"a.{suffix}"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_of_an_archive_changes_no_number(tmp_path, save):
    """numpy stops at the end of the array, before zipfile has compared the checksum."""
    path = write(tmp_path, array_bytes(lambda b, a: save(b, draws=a, weight=a[:, 0] ** 2), ROWS),
                 "a.npz")  # fmt: skip
    content, sound = path.read_bytes(), readers.read_arrays(path)
    random, errors = np.random.default_rng(0), 0
    places = [*random.integers(8 * len(content), size=300), *random.integers(8 * 200, size=300)]
    places += [8 * len(content) - 1 - place for place in random.integers(8 * 200, size=300)]
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(damaged))
        try:
            arrays = readers.read_arrays(path)
        except InputError:
            errors += 1
        else:
            assert [array.tobytes() for array in arrays.values()] == [
                array.tobytes() for array in sound.values()
            ]
    assert errors > 300


def test_an_archive_that_lost_an_array_is_refused(tmp_path):
    """A longer name in the directory of the archive swallows the entries after it."""
    path = write(tmp_path, array_bytes(lambda b, a: np.savez(b, draws=a, weight=a[:, 0]), ROWS),
                 "a.npz")  # fmt: skip
    content = bytearray(path.read_bytes())
    comment_length = content.index(b"PK\x01\x02") + 32
    content[comment_length] += 46 + len("weight.npy")
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="holds 1 arrays, announces 2"):
        read_draws(path)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_draws(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="is a directory"):
        read_draws(tmp_path)


def test_columns_are_matched_by_name(tmp_path):
    table = read_table(write(tmp_path, csv_text()))
    assert np.array_equal(columns_for(table, ("b", "a"), "f"), ROWS[:, ::-1])
    with pytest.raises(InputError, match="columns are a, b, expected a, c"):
        columns_for(table, ("a", "c"), "f")
    np.save(tmp_path / "p.npy", ROWS)
    with pytest.raises(InputError, match=r"expected n × 3, found shape \(200, 2\)"):
        columns_for(read_table(tmp_path / "p.npy"), ("a", "b", "c"), "f")


def test_a_large_file_is_read_as_it_is_written(tmp_path):
    draws = np.random.default_rng(0).normal(size=(70_000, 2))
    np.save(tmp_path / "large.npy", draws)
    values = read_draws(tmp_path / "large.npy").values
    (tmp_path / "large.npy").write_bytes(b"")  # what was read is a copy
    assert np.array_equal(values.numpy(), draws)
