"""Reports of runs from the command line: ``amfvi report``, ``amfvi compare``, and after a fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from amfvi.cli.flags import flags_for_arguments
from amfvi.errors import InputError, UsageError
from amfvi.files import check_file, file_hash, new_file
from amfvi.json_files import read_json
from amfvi.report.contents import RunContents
from amfvi.sealed_json import describe_damage

__all__ = ["REPORT", "read_contents", "show_comparison", "try_to_write_report", "write_report"]

REPORT = "report.html"
"""The report in a run directory."""

PNG = b"\x89PNG\r\n\x1a\n"
"""How a PNG file begins."""


def read_contents(directory: str | Path, *, figures: bool = True) -> RunContents:
    """Read what a report shows of a run.

    Args:
        figures: whether to read the figures too.

    Raises:
        InputError: no run directory, or a damaged one.

    Examples:
        >>> read_contents("no-such-run")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-run: no such run directory
    """
    from amfvi.cli.summary import summarize
    from amfvi.runs.saved import SavedRun

    saved = SavedRun.open(directory)
    raw = read_json(saved.path / "metrics.json")
    parameters: dict[str, dict[str, float]] = {}
    if "given_names" in raw:
        config, metrics = _read_pairs(saved.path), raw
    else:
        config, metrics = saved.config, saved.metrics
        draws, names = saved.draws()
        parameters = summarize(draws, names)
    environment = saved.path / "environment.json"
    return RunContents(
        path=str(directory),
        config=config,
        metrics=_with_flags(metrics),
        environment=read_json(environment) if environment.is_file() else {},
        parameters=parameters,
        figures=_read_figures(saved.path / "figures") if figures else {},
    )


def _read_pairs(path: Path) -> dict[str, Any]:
    """The settings of a run of pairs, unless something was changed since."""
    config = read_json(path / "config.json")
    damage = describe_damage(config, path / "config.json")
    if damage is None and config.get("metrics_sha256") != file_hash(path / "metrics.json"):
        damage = f"{path / 'metrics.json'}: damaged or edited; copy the run again, or fit again"
    if damage is not None:
        raise InputError(damage)
    return config


def _read_figures(folder: Path) -> dict[str, bytes]:
    figures = {}
    for file in sorted(folder.glob("*.png")):
        content = file.read_bytes()
        if not content.startswith(PNG) or len(content) < 24:
            raise InputError(f"{file}: no PNG file; fit again, or delete it")
        figures[file.stem] = content
    return figures


def _with_flags(metrics: dict[str, Any]) -> dict[str, Any]:
    """The record with flags in place of arguments of Python in reasons and warnings."""
    metrics = copy.deepcopy(metrics)
    for judged in (metrics.get("density"), metrics.get("calibration")):
        if judged is not None:
            judged["reasons"] = [flags_for_arguments(reason) for reason in judged["reasons"]]
    metrics["warnings"] = [flags_for_arguments(line) for line in metrics.get("warnings") or []]
    return metrics


def write_report(directory: str | Path) -> Path:
    """Write ``report.html`` into a run directory, in the place of one that is there.

    Returns:
        The path of the file.

    Raises:
        InputError: no run directory, a damaged one, or one that cannot be written to.

    Examples:
        >>> write_report("no-such-run")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-run: no such run directory
    """
    from amfvi.report.page import render_report

    page = render_report(read_contents(directory))
    path = Path(directory) / REPORT
    with new_file(path, overwrite=True) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def try_to_write_report(directory: str | Path) -> tuple[Path | None, str]:
    """Write the report of a fit that has ended, which no error may spoil.

    Returns:
        The path of the file and no words; or None, and in one line why there is none.

    Examples:
        >>> try_to_write_report("no-such-run")
        (None, 'no report was written: no-such-run: no such run directory')
    """
    try:
        return write_report(directory), ""
    except Exception as error:  # the fit is saved, whatever is wrong with the page
        words = " ".join(str(error).split()) or type(error).__name__
        return None, f"no report was written: {words}"


def show_comparison(runs: list[Path], html: Path | None, force: bool, as_json: bool) -> None:
    """Print runs beside each other, or write them as a page.

    Raises:
        UsageError: fewer than two runs.
        InputError: no run directory, or a damaged one.

    Examples:
        >>> show_comparison([Path("a")], None, False, False)
        Traceback (most recent call last):
        amfvi.errors.UsageError: compare needs two runs or more, found 1
    """
    if len(runs) < 2:
        raise UsageError(f"compare needs two runs or more, found {len(runs)}")
    from amfvi.cli import console
    from amfvi.cli.tables import comparison_table
    from amfvi.report.comparison import compare

    if html is not None:
        check_file(html, overwrite=force)
    found = compare([read_contents(run, figures=False) for run in runs])
    if html is not None:
        with new_file(html, overwrite=force) as temporary:
            temporary.write_text(found.to_html(), encoding="utf-8")
    if as_json:
        console.print_json(found.to_json())
        return
    console.show(comparison_table(found), *(f"note: {note}" for note in found.notes))
    if html is not None:
        console.show(f"saved:   {html}")
