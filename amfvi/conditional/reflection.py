"""Experts within bounds: reflected there, or by Bayes' rule over what lies between them."""

from __future__ import annotations

from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.experts import Expert, ReflectedExpert
from amfvi.experts.bayes_rule import LikelihoodExpert

__all__ = ["reflect"]


def reflect(expert: Expert, transform: UnconstrainingTransform) -> Expert:
    """Reflect an expert at the bounds where a transform reflects; the same one without any.

    Bayes' rule needs the density of the parameter reflected alone: there is no parameter beyond
    its bounds for the condition to be given by.

    Examples:
        >>> import torch
        >>> from amfvi.constraints.constraints import Constraints
        >>> from amfvi.experts import GMM
        >>> expert = GMM().fit(torch.rand(50, 1, generator=torch.Generator().manual_seed(0)))
        >>> unit = Constraints((0.0,), (1.0,))
        >>> reflect(expert, UnconstrainingTransform(unit)) is expert
        True
        >>> reflect(expert, UnconstrainingTransform(unit, (0.0,))).dim
        1
    """
    bounds = transform.reflecting
    if bounds is None:
        return expert
    if isinstance(expert, LikelihoodExpert):
        return expert.within(*bounds)
    return ReflectedExpert(expert, *bounds)
