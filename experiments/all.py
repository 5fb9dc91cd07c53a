"""Every study, one after the other.

    python experiments/all.py [--seeds 5] [--quick]

Cells that are finished are not run again.
"""

from __future__ import annotations

import importlib

from index import STUDIES
from study import Study, command


def study(name: str) -> Study:
    found: Study = importlib.import_module(name).STUDY
    return found


if __name__ == "__main__":
    for name in STUDIES:
        command(study(name))
