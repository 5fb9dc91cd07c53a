"""Conditional density estimators of others: the networks of a paper, and those of sbi.

The networks are those of "Multimodal Scientific Learning Beyond Diffusions and Flows"
(arXiv:2602.00960): five layers of 128, GELU, AdamW with a warm-up to 5e-3 and exponential decay.
What it leaves open is the same for both: the number of components (8), batches of 256, 1,500
steps, standardized data, and the best state on a fifth of the rows that is held out. A mixture
density network has the likelihood as its loss, flow matching the error of the velocity; its
density is an integral over time by Runge–Kutta steps, with the exact trace.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from contextlib import chdir
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from amfvi.errors import UsageError
from amfvi.experts.flows.velocity import integrate
from amfvi.experts.optimism import average_members
from amfvi.randomness import generator_for
from experiments.lab.conditional_tasks import FOLDS, Task

__all__ = ["CardMDN", "CardNetwork", "Ensemble", "LinearGaussian", "NaiveFlow", "Sbi"]

WIDTH, DEPTH = 128, 5
"""Of the hidden layers."""

COMPONENTS = 8
"""Of a mixture density network, unless others are asked for."""

LEARNING_RATE = 5e-3
"""The largest."""

WARMUP = 100
"""Steps in which the learning rate rises to it."""

LAST_RATE = 0.01
"""Share of it that is left after the last step."""

BATCH = 256
"""Most rows per step."""

CHECK_EVERY = 25
"""Steps between two looks at the held-out rows."""

VALIDATION_REPEATS = 20
"""Times and normal points for each held-out row of flow matching, the same at every look."""

CARD_ROWS = 2**9
"""Rows that the card's networks are evaluated at at a time, so that layers stay in cache."""

CHUNK = 2**12
"""Rows that sbi's networks are evaluated at at a time."""

CORRECTION_DRAWS = 500
"""Draws for each condition that sbi's share of mass inside the bounds is estimated from."""

MAX_ROUNDS = 200
"""Times that draws outside the bounds are drawn again."""


class CardNetwork(nn.Module):
    """A network of standardized conditions c and parameters x; subclasses say what it gives."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(DEPTH):
            layers += [nn.Linear(inputs if number == 0 else WIDTH, WIDTH), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(WIDTH, outputs))

    @abstractmethod
    def loss(self, c: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        """What is minimized, a mean over rows."""

    @abstractmethod
    def log_prob(self, c: Tensor, x: Tensor) -> Tensor:
        """Log density (n,) of rows (n, g) and (n, d), nats."""

    @abstractmethod
    def sample(self, c: Tensor, generator: torch.Generator) -> Tensor:
        """One draw (n, d) for each row of c."""


class CardMDN(CardNetwork):
    """Mixture of normals with diagonal covariances: softmax, identity, softplus."""

    def __init__(self, given: int, dim: int, components: int = COMPONENTS) -> None:
        super().__init__(given, components * (1 + 2 * dim))
        self.sizes = (components, dim)

    def components(self, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (n, K), means and standard deviations (n, K, d)."""
        k, d = self.sizes
        logits, means, raw = self.layers(c).split([k, k * d, k * d], dim=1)
        sds = nn.functional.softplus(raw) + 1e-4
        return logits.log_softmax(dim=1), means.unflatten(1, (k, d)), sds.unflatten(1, (k, d))

    def log_prob(self, c: Tensor, x: Tensor) -> Tensor:
        log_weights, means, sds = self.components(c)
        of_each = torch.distributions.Normal(means, sds).log_prob(x[:, None]).sum(dim=2)
        return (log_weights + of_each).logsumexp(dim=1)

    def loss(self, c: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        return -self.log_prob(c, x).mean()

    def sample(self, c: Tensor, generator: torch.Generator) -> Tensor:
        log_weights, means, sds = self.components(c)
        k = torch.multinomial(log_weights.exp(), 1, generator=generator)[:, 0]
        row = torch.arange(len(c))
        return means[row, k] + sds[row, k] * torch.randn(means[row, k].shape, generator=generator)


class NaiveFlow(CardNetwork):
    """A velocity of points on straight paths from a standard normal, with nothing added."""

    steps = 20

    def __init__(self, given: int, dim: int) -> None:
        super().__init__(given + dim + 1, dim)
        self.dim = dim

    def velocity(self, c: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([c, x, t.expand(len(x), 1)], dim=1))

    def loss(self, c: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator)
        t = torch.rand(len(x), 1, generator=generator)
        found = self.velocity(c, torch.lerp(noise, x, t), t)
        return (found - (x - noise)).square().sum(dim=1).mean()

    def log_prob(self, c: Tensor, x: Tensor) -> Tensor:
        basis = torch.eye(self.dim).to(x)

        def derivative(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            points, trace = y[0].T, torch.zeros(len(x)).to(x)
            for k in range(self.dim):
                moved = torch.func.jvp(
                    lambda p: self.velocity(c, p, t), (points,), (basis[k].expand_as(points),)
                )
                v, along = moved[0], moved[1]
                trace = trace + along[:, k]
            return v.T[None], trace[None]

        normal, log_det = integrate(derivative, x.T[None], steps=self.steps, backwards=True)
        of_normal = torch.distributions.Normal(0.0, 1.0).log_prob(normal[0]).sum(dim=0)
        return of_normal + log_det[0]

    def sample(self, c: Tensor, generator: torch.Generator) -> Tensor:
        normal = torch.randn(len(c), self.dim, generator=generator)
        no_trace = torch.zeros(1, len(c))

        def derivative(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return self.velocity(c, y[0].T, t).T[None], no_trace

        return integrate(derivative, normal.T[None], steps=self.steps, backwards=False)[0][0].T


class Ensemble:
    """Networks behind one map to the bounds and one standardization, their densities averaged."""

    def __init__(self, task: Task, networks: list[CardNetwork], moments: tuple[Tensor, ...]):
        self.networks = networks
        self.transform = task.split.transform
        self.moments = moments

    @classmethod
    def fit(cls, task: Task, network: Any, *, members: int, steps: int, **options: Any) -> Ensemble:
        """Train ``members`` networks, each without one of the folds, which it is stopped by."""
        folds = task.split.folds
        mean, sd = folds.draws.mean(dim=0), folds.draws.std(dim=0)
        z = ((folds.draws - mean) / sd).float()
        c, x = z[:, : folds.given], z[:, folds.given :]
        trained = []
        for member in range(min(members, FOLDS)):
            seed = int(torch.randint(2**31, (), generator=generator_for(task.seed, "card", member)))
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                net = network(c.shape[1], x.shape[1], **options)
            is_heldout = folds.fold == member
            _train(net, (c, x), is_heldout, steps, torch.Generator().manual_seed(seed))
            trained.append(net)
        return cls(task, trained, (mean, sd))

    @torch.no_grad()
    def log_prob_unconstrained(self, x: Tensor, given: Tensor) -> Tensor:
        """Log density (n,) over unconstrained parameters (n, d)."""
        mean, sd = self.moments
        z = ((torch.cat([given, x], dim=1) - mean) / sd).float()
        g = given.shape[1]
        parts = [
            torch.stack([net.log_prob(part[:, :g], part[:, g:]).double() for net in self.networks])
            for part in z.split(CARD_ROWS)
        ]
        return average_members(torch.cat(parts, dim=1)) - sd[g:].log().sum()

    def log_prob(self, y: Tensor, /, *, given: Tensor) -> Tensor:
        x, log_det = self.transform.to_unconstrained(y.double())
        return self.log_prob_unconstrained(x, given) + log_det

    @torch.no_grad()
    def sample(self, n_draws: int, /, *, given: Tensor, generator: torch.Generator) -> Tensor:
        mean, sd = self.moments
        g = given.shape[1]
        c = ((given - mean[:g]) / sd[:g]).float().repeat(n_draws, 1)
        member = torch.randint(len(self.networks), (len(c),), generator=generator)
        x = torch.empty(len(c), len(mean) - g, dtype=torch.float64)
        for k, net in enumerate(self.networks):
            for rows in (member == k).nonzero()[:, 0].split(CARD_ROWS):
                x[rows] = net.sample(c[rows], generator).double()
        y = self.transform.from_unconstrained(x * sd[g:] + mean[g:])
        return y.view(n_draws, len(given), -1)


def _train(
    net: CardNetwork, data: tuple[Tensor, Tensor], is_heldout: Tensor, steps: int,
    generator: torch.Generator,
) -> None:  # fmt: skip
    """Train a network on the rows that are not held out; keep its best state on the others."""
    c, x = (part[~is_heldout] for part in data)
    repeats = VALIDATION_REPEATS if isinstance(net, NaiveFlow) else 1
    heldout_c, heldout_x = (part[is_heldout].repeat(repeats, 1) for part in data)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    decay = math.log(LAST_RATE) / steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * math.exp(decay * step)
    )
    best, state = math.inf, copy.deepcopy(net.state_dict())
    for step in range(steps):
        rows = torch.randperm(len(c), generator=generator)[:BATCH]
        optimizer.zero_grad()
        net.loss(c[rows], x[rows], generator).backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % CHECK_EVERY == 0:
            with torch.no_grad():
                score = float(net.loss(heldout_c, heldout_x, torch.Generator().manual_seed(0)))
            if score < best:
                best, state = score, copy.deepcopy(net.state_dict())
    net.load_state_dict(state)


class Sbi:
    """Neural posterior estimation by sbi with its defaults.

    Within bounds its density is divided by the share of its mass inside, estimated from draws at
    each condition as sbi's ``leakage_correction`` does, and draws outside are drawn again.
    """

    def __init__(self, task: Task, kind: str) -> None:
        try:
            from sbi.inference import NPE
        except ImportError as error:
            raise UsageError("this needs sbi: pip install 'amfvi[bench]'") from error
        self.box = task.box
        # sbi writes a log of its training into the folder that it runs in.
        with torch.random.fork_rng(), TemporaryDirectory() as folder, chdir(folder):
            torch.manual_seed(task.seed)
            inference = NPE(density_estimator=kind, show_progress_bars=False)
            inference.append_simulations(task.pairs.draws.values.float(), task.pairs.given.float())
            self.estimator = inference.train()
        self.estimator.eval()
        self.seed = task.seed

    @torch.no_grad()
    def log_prob(self, y: Tensor, /, *, given: Tensor) -> Tensor:
        parts = zip(y.float().split(CHUNK), given.float().split(CHUNK), strict=True)
        log_q = [self.estimator.log_prob(each[None], condition=c)[0] for each, c in parts]
        return torch.cat(log_q).double() - self._log_share_inside(given)

    @torch.no_grad()
    def sample(self, n_draws: int, /, *, given: Tensor, generator: torch.Generator) -> Tensor:
        rows = given.float().repeat(n_draws, 1)
        draws = torch.empty(len(rows), self.estimator.input_shape[0], dtype=torch.float64)
        left = torch.arange(len(rows))
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            for _ in range(MAX_ROUNDS):
                draws[left] = self._draw_one(rows[left])
                left = left[~self._is_inside(draws[left])]
                if not len(left):
                    break
        if self.box is not None:  # what is left after all rounds goes to the bound
            draws = draws.clamp(*self.box)
        return draws.view(n_draws, len(given), -1)

    def _draw_one(self, rows: Tensor) -> Tensor:
        parts = [self.estimator.sample((1,), condition=part)[0] for part in rows.split(CHUNK)]
        return torch.cat(parts).double()

    def _is_inside(self, y: Tensor) -> Tensor:
        if self.box is None:
            return torch.ones(y.shape[:-1], dtype=torch.bool)
        low, high = self.box
        return ((y >= low) & (y <= high)).all(dim=-1)

    def _log_share_inside(self, given: Tensor) -> Tensor:
        """Log share of mass inside the bounds at each distinct condition, for all rows (n,)."""
        if self.box is None:
            return torch.zeros(len(given), dtype=torch.float64)
        distinct, which = torch.unique(given.float(), dim=0, return_inverse=True)
        shares = []
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for part in distinct.split(200):
                draws = self.estimator.sample((CORRECTION_DRAWS,), condition=part)
                shares.append(self._is_inside(draws.double()).double().mean(dim=0))
        return torch.cat(shares).clamp(min=1 / CORRECTION_DRAWS).log()[which]


class LinearGaussian:
    """The linear regression of y on c by least squares, with normal errors."""

    def __init__(self, task: Task) -> None:
        c, y = task.pairs.given, task.pairs.draws.values
        design = torch.cat([torch.ones(len(c), 1).double(), c], dim=1)
        self.solution = torch.linalg.lstsq(design, y).solution
        residual = y - design @ self.solution
        covariance = residual.T @ residual / max(len(c) - design.shape[1], 1)
        self.factor = torch.linalg.cholesky(covariance)

    def log_prob(self, y: Tensor, /, *, given: Tensor) -> Tensor:
        normal = torch.distributions.MultivariateNormal(self._mean(given), scale_tril=self.factor)
        return normal.log_prob(y)

    def sample(self, n_draws: int, /, *, given: Tensor, generator: torch.Generator) -> Tensor:
        shape = (n_draws, len(given), len(self.factor))
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self._mean(given) + noise @ self.factor.T

    def _mean(self, given: Tensor) -> Tensor:
        return torch.cat([torch.ones(len(given), 1).double(), given], dim=1) @ self.solution
