"""Files of draws: what is read, and what a wrong file is told."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from amfvi.errors import InputError
from amfvi.readers import columns_for, read_draws, read_table

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
        csv_text().replace("\n", "\r\n"),
        csv_text().replace(",", ";"),
        csv_text().replace(",", "\t"),
        "# made by a sampler\n" + csv_text() + "# done\n\n",
    ],
    ids=["plain", "bom", "quoted", "crlf", "semicolon", "tab", "comments"],
)
def test_dialects_of_csv(tmp_path, text):
    draws = read_draws(write(tmp_path, text))
    assert draws.names == ("a", "b")
    assert np.array_equal(draws.values.numpy(), ROWS)


@pytest.mark.parametrize("names", ["chain,draw,a,b", ".chain,.draw,a,b"])
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
    columns = read_draws(tmp_path / "columns.npz")
    assert columns.names == ("u", "v")
    assert int(columns.chain.max()) == 1


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


def bomb(claimed_rows):
    """An NPZ whose member's header claims far more than it holds."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "<f8", "fortran_order": False, "shape": (claimed_rows, 2)}
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("draws.npy", member.getvalue())
    return archive.getvalue()


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
        ("a.npz", bomb(10**12), "unpacks to .* GiB, the limit is 4"),
        ("a.npz", array_bytes(lambda b, a: np.savez(b, u=a, v=a[:5]), ROWS), "expected an array"),
        ("a.npy", array_bytes(np.save, ROWS + 1j), "dtype complex128"),
        ("a.npy", array_bytes(np.save, ROWS.reshape(2, 100, 2)), "--chains"),
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
        ("a.txt", b"a b\n1 2\n", r"unknown kind of file '.txt', expected .csv, .npy or .npz"),
    ],
)
def test_what_is_wrong_with_an_array_file(tmp_path, name, content, message):
    path = write(tmp_path, content, name)
    with pytest.raises(InputError, match=message) as error:
        read_draws(path)
    assert str(error.value).startswith(f"{path}: ")


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
