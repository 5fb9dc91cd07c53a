"""The checkout on the path: the documentation is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

if str(CHECKOUT) not in sys.path:
    sys.path.append(str(CHECKOUT))  # at the end: an installed amfvi comes first
