"""Every threshold that a verdict, a refinement or a search rests on, in one place."""

from __future__ import annotations

import math

__all__ = [
    "CALIBRATION_FALSE_ALARMS",
    "DEFENSIVE_WEIGHT",
    "FAR_RADIUS",
    "GOOD_EFFICIENCY",
    "LOG_UNDETECTED_RATIO",
    "LOG_Z_TOLERANCE",
    "MAX_DEFENSIVE_FREEDOM",
    "MAX_DEPARTURE",
    "MAX_LOG_Z_SE",
    "MAX_MENDED_SHIFT",
    "MAX_OUTSIDE",
    "MAX_PLAIN_BOUND",
    "MAX_PLAIN_SHIFT",
    "MAX_SAMPLER_ERROR",
    "MAX_SD_NOISE",
    "MAX_SD_SE",
    "MAX_SHIFT",
    "MAX_TELLING_KHAT",
    "MAX_UNRESOLVED_SHARE",
    "MAX_VARIANCE_KHAT",
    "MAX_WEIGHTED_SD_NOISE",
    "MIN_EFFICIENCY",
    "MIN_GAIN",
    "MIN_LAPLACE_LOG_SHARE",
    "MIN_PROBE_ESS",
    "MIN_REWEIGHTED_EFFICIENCY",
    "MIN_SHARE",
    "NEARLY_EQUAL_WEIGHTS",
    "NOTABLE_OUTSIDE",
    "RUN_LOG_Z_TOLERANCE",
    "RUN_MEAN_TOLERANCE",
    "SIGNIFICANT",
    "WELL_SEARCHED_DIM",
]

GOOD_EFFICIENCY = 0.5
"""Effective sample size per draw of a mixture above which its draws need no weights."""

MIN_REWEIGHTED_EFFICIENCY = 0.2
"""Effective sample size per draw from which a mixture is fitted to its weighted draws."""

MIN_GAIN = 1.1
"""Factor in efficiency below which no further refinement is tried."""

LOG_Z_TOLERANCE = 0.1
"""Nats that mixture and sampler may differ in log Z, whatever errors they claim."""

RUN_LOG_Z_TOLERANCE = 0.5
"""Nats that two runs of the sampler may differ in log Z, or a bound and log Z."""

RUN_MEAN_TOLERANCE = 0.2
"""Standard deviations that the means of two runs of the sampler may differ."""

MIN_SHARE = 0.01
"""Share of the mass below which an undetected mode or tail is not reported."""

MIN_LAPLACE_LOG_SHARE = math.log(MIN_SHARE) - 3.0
"""Log share, by Laplace's approximation, below which a mode is not probed."""

LOG_UNDETECTED_RATIO = math.log(20.0)
"""Nats that q lies below p where a mixture counts as lacking what is there."""

MIN_PROBE_ESS = 5.0
"""Effective draws that an estimate of undetected mass must rest on."""

FAR_RADIUS = 300.0
"""How many times wider than the mixture the tails are searched."""

NEARLY_EQUAL_WEIGHTS = 0.9
"""Efficiency above which a high k̂ calls for more draws before anything else."""

MAX_DEFENSIVE_FREEDOM = 10.0
"""Most degrees of freedom of a defensive component, so that its tails are heavy."""

DEFENSIVE_WEIGHT = 0.05
"""Weight of a defensive component."""

CALIBRATION_FALSE_ALARMS = 0.005
"""Share of right conditional densities that all tests of calibration together may reject."""

SIGNIFICANT = 3.0
"""Standard errors from which a difference counts as one."""

MAX_PLAIN_SHIFT = 0.05
"""Change of a mean (in sd) or log sd by weighting up to which plain draws are right."""

MAX_PLAIN_BOUND = 0.07
"""The same with two standard errors, up to which plain draws are known to be right."""

MAX_SD_SE = 0.05
"""Relative standard error of a standard deviation above which weighted draws do not tell it."""

MAX_SD_NOISE = 0.025
"""The same, whatever it is due to, where plain draws seem not to be right."""

MAX_WEIGHTED_SD_NOISE = 0.03
"""The same, above which weighted draws do not tell it where plain ones are not right."""

MAX_TELLING_KHAT = 0.5
"""k̂ from which weights have no variance, and do not tell how much of the mass a mixture makes
unlikely."""

MAX_VARIANCE_KHAT = 0.5
"""k̂ of a variance, raised by the weights, from which its standard error tells nothing."""

MAX_SHIFT = 0.15
"""Change by weighting above which the weights have too much to mend to be relied on."""

MAX_MENDED_SHIFT = 0.3
"""The same, above which a fit to weighted draws is not tried."""

MAX_OUTSIDE = 0.1
"""Share of a variance that chains far out may find beyond what weighted draws show."""

NOTABLE_OUTSIDE = 0.03
"""The same, from which more chains look, and the sampler moves on before a fit to weighted draws
is tried."""

MAX_DEPARTURE = 0.05
"""Nats by which chains may find the density above what a mixture says."""

MIN_EFFICIENCY = 0.1
"""Effective sample size per draw below which not even weighted draws are reliable."""

MAX_LOG_Z_SE = 0.03
"""Standard error of log Z above which too much hangs on a few draws."""

MAX_SAMPLER_ERROR = 0.25
"""Nats up to which noise of the sampler's log Z may explain a difference."""

MAX_UNRESOLVED_SHARE = 0.005
"""Share of the draws that may be nearer to a bound than numbers resolve."""

WELL_SEARCHED_DIM = 2
"""Dimension up to which random points come near every mode that has a share of the mass."""
