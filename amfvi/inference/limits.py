"""How many evaluations and how much time the steps of one inference may take."""

from __future__ import annotations

__all__ = [
    "ARRIVAL_RESERVE",
    "CHALLENGE_RESERVE",
    "CONFIRMATION_SHARE",
    "DEPARTURE_SHARE",
    "EVALUATIONS",
    "LAST_EVALUATIONS",
    "MAX_CONFIRMED",
    "MAX_DRAWS_NEEDED",
    "MAX_WEIGHTED_DRAWS",
    "MIN_REWEIGHTED_SHARE",
    "MIN_WEIGHTED_DRAWS",
    "RESERVED_EVALUATIONS",
    "RESERVED_TIME",
]

MAX_WEIGHTED_DRAWS = 5_000
"""Draws of the mixture at which it is compared with the density."""

MIN_WEIGHTED_DRAWS = 200
"""The same, however little time is left."""

RESERVED_TIME = 0.4
"""Share of a timeout that is kept back from the first sampling."""

EVALUATIONS = (150_000, 20_000)
"""Limit of the evaluations if none is given: a constant, and per parameter."""

MIN_REWEIGHTED_SHARE = 0.3
"""Effective draws of a weighted sample, as a share of all, below which no more are drawn."""

CONFIRMATION_SHARE = 0.1
"""Draws at which a mixture is compared before it is accepted, per evaluation spent before."""

MAX_CONFIRMED = 20_000
"""The same, at most."""

MAX_DRAWS_NEEDED = 40_000
"""Draws at which it is compared where fewer leave log Z or a standard deviation too uncertain."""

LAST_EVALUATIONS = 4_000
"""Evaluations that a closer look leaves for the upper bound on the evidence."""

DEPARTURE_SHARE = 0.04
"""Evaluations for chains that start from a mixture's draws, per evaluation spent before."""

ARRIVAL_RESERVE = 70_000
"""Evaluations that must be left for another round of moving on and a fit after it."""

RESERVED_EVALUATIONS = 0.2
"""Share of the evaluations that is kept for the comparison of mixture and density."""

CHALLENGE_RESERVE = 0.1
"""The same, while a fit is refined, for chains that start from the mixture's draws: what could
not be looked at counts against a fit."""
