"""Modules that the command line loads from users' files, and their way to other processes."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["USER_MODULE", "send_by_value"]

USER_MODULE = "amfvi_user_"
"""Beginning of the names of these modules, so that random.py is not the standard library's."""


def send_by_value(cloudpickle: Any) -> None:
    """Let their functions, which no other process can import by name, travel as they are.

    Args:
        cloudpickle: the module of that name, whose copies keep records of their own.

    Examples:
        >>> import cloudpickle
        >>> send_by_value(cloudpickle)
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(USER_MODULE):
            cloudpickle.register_pickle_by_value(module)
