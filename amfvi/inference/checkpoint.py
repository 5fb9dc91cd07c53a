"""Keep the sampler's state between calls of ``amfvi.fit`` for the same density."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amfvi.density.log_density import LogDensity
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.integrability import NotIntegrableError
from amfvi.two_stage.options import FitOptions

__all__ = ["checkpointing", "describe_values"]

FOLDER = "sampler"
"""Folder in the user's directory that holds the state, and goes with it."""

WHERE = "cluster"
"""Option that says where a fit is made, and changes no number."""


@contextmanager
def checkpointing(
    directory: str | Path | None, density: LogDensity, options: FitOptions
) -> Iterator[SamplerCheckpoint | None]:
    """The state of the sampler in a directory: read, kept where the block fails, else removed.

    It is used only by a density that has the same values at a few points, and by the same
    options.

    Examples:
        >>> density = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> with checkpointing(None, density, FitOptions()) as checkpoint:
        ...     checkpoint is None
        True
    """
    if directory is None:
        yield None
        return
    described: dict[str, Any] = options.to_json()
    described.pop(WHERE)
    fingerprint = repr(
        (described, density.names, str(density.constraints), describe_values(density))
    )
    checkpoint = SamplerCheckpoint(Path(directory) / FOLDER, fingerprint)
    try:
        yield checkpoint
    except NotIntegrableError:
        checkpoint.clear()  # the same call would only fail again
        raise
    except BaseException as error:
        if checkpoint.path.exists():
            error.add_note(f"the sampler's state is kept in {directory}; the same call resumes it")
        raise
    checkpoint.clear()


def describe_values(density: LogDensity) -> list[str]:
    """Values of a density at a few points, which stand for all that it depends on.

    Examples:
        >>> describe_values(LogDensity(lambda x: 0 * x.sum(dim=1) - 1, dim=1))
        ['-1', '-1', '-1']
    """
    density.vectorized  # noqa: B018  # evaluates the test points
    return [f"{value:.9g}" for value in density.test_values]
