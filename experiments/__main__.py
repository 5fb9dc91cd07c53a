"""Run studies and write their pages.

    python -m experiments [weights ...] [--seeds 5] [--quick] [--only AXIS=VALUE ...]

Without names, all studies are run, in the order of the index. Cells that are finished
are not run again.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from experiments.lab.index import STUDIES, UNPUBLISHED
from experiments.lab.pages import RESULTS
from experiments.lab.study import Size, Study, run_study

__all__ = ["load_study", "main"]


def load_study(name: str) -> Study:
    """Import the study of this name."""
    study: Study = importlib.import_module(f"experiments.studies.{name}").STUDY
    return study


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the studies named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Run studies and write their pages."
    )
    parser.add_argument("studies", nargs="*", metavar="STUDY",
                        help=f"of {', '.join(STUDIES)} (by default all of these), "
                             f"{', '.join(UNPUBLISHED)}")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5, help="per cell; 2 at most if quick")
    parser.add_argument("--quick", action="store_true", help="about a minute; not for the page")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="of finished cells; by default under runs")
    parser.add_argument("--results", type=Path, help="of the page; experiments/results if full")
    parser.add_argument("--any-version", action="store_true",
                        help="also take cells finished by other versions of the code, as the "
                             "page then says")  # fmt: skip
    parser.add_argument(
        "--only-finished",
        action="store_true",
        help="run nothing: make the page of the cells that are finished",
    )
    parser.add_argument("--only", default=(), metavar="AXIS=VALUE[,VALUE...]", nargs="*",
                        help="run these cells alone, such as method=ours n=200,500; the page is "
                             "of all that are finished")  # fmt: skip
    parser.add_argument("--archive", action="store_true",
                        help="read finished cells from STUDY.jsonl beside the page, and write "
                             "them there")  # fmt: skip
    options = parser.parse_args(arguments)
    known = (*STUDIES, *UNPUBLISHED)
    if unknown := [name for name in options.studies if name not in known]:
        parser.error(f"no study {', '.join(unknown)} (studies: {', '.join(known)})")
    if wrong := [choice for choice in options.only if "=" not in choice]:
        parser.error(f"--only: expected AXIS=VALUE, found {wrong[0]}")
    kind = "tiny" if options.tiny else "quick" if options.quick else "full"
    size = Size(name=kind, seeds=min(options.seeds, 2) if options.quick else options.seeds)
    folder = options.folder or Path("runs") / ("studies" if kind == "full" else f"studies-{kind}")
    results = options.results or (RESULTS if kind == "full" else folder / "results")
    for name in options.studies or STUDIES:
        run_study(
            load_study(name), size, folder, results,
            any_version=options.any_version, only_finished=options.only_finished,
            only=dict(choice.split("=", 1) for choice in options.only),
            archive=results / f"{name}.jsonl" if options.archive else None,
        )  # fmt: skip


if __name__ == "__main__":
    main()
