"""The device that a fit computes on."""

from __future__ import annotations

import torch

from amfvi.errors import UsageError

__all__ = ["resolve_device"]


def resolve_device(device: torch.device | str) -> torch.device:
    """Find the device meant by a name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        UsageError: an unknown device, or one that this machine does not have.

    Examples:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device={device} cannot be used here ({reason})") from None
    return chosen
