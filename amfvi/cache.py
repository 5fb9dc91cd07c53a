"""The folder of what is worth keeping between processes and can always be made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """``amfvi`` under ``XDG_CACHE_HOME``, or under ``~/.cache``; it need not exist.

    Examples:
        >>> cache_folder().name
        'amfvi'
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amfvi"
