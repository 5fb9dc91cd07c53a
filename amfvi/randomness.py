"""Independent random generators, one per purpose of a run with one seed.

Each purpose has its own generator, so that adding an expert or a metric changes none
of the numbers that the others see.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

__all__ = ["generator_for"]


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """Make the CPU generator for one purpose of the run with this seed.

    Examples:
        >>> a = torch.rand(2, generator=generator_for(0, "maf"))
        >>> bool((a == torch.rand(2, generator=generator_for(0, "maf"))).all())
        True
        >>> bool((a == torch.rand(2, generator=generator_for(0, "rbig"))).any())
        False
    """
    label = zlib.crc32("/".join(map(str, purpose)).encode())
    words = np.random.SeedSequence([seed, label]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
