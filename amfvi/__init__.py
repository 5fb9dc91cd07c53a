"""Variational inference by mixtures of different normalizing flows.

>>> import amfvi
>>> posterior = amfvi.fit("banana", n_draws=1000, experts=["rbig"], seed=0)
>>> posterior.sample((3,)).shape
torch.Size([3, 2])
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
