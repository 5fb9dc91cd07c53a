"""The harness itself: bugs that people do write must fail the tests that guard against them.

Each bug patches the package in a process of its own, which then runs the guarding tests.
The processes are forked from one that has done all imports and nothing else: a fit that
is cached in this process would hide a bug.
"""

from __future__ import annotations

import json
import multiprocessing
import runpy
import tempfile
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

IMPORTED_BEFORE = ["pytest", "scipy.stats", "amfvi.fitting", "amfvi.metrics.evaluation"]
"""Modules that the processes share, and with them torch."""

TIMEOUT = 300
"""Seconds after which a process that hangs is killed."""

SCRIPT = """
import contextlib, json, os, sys
import pytest

class Recorder:
    failed = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)

os.chdir({root!r})
exec({bug!r}, {{}})
with open({log!r}, "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
    status = pytest.main({arguments!r}, plugins=[Recorder()])
with open({failed!r}, "w") as file:
    json.dump(Recorder.failed, file)
sys.exit(int(status))
"""

BUGS = {
    "rbig_log_det_of_the_wrong_sign": (
        """
        from amfvi.experts.flows.gaussianization import Layer
        right = Layer.forward
        Layer.forward = lambda self, z: (right(self, z)[0], -right(self, z)[1])
        """,
        "tests/experts/test_contract.py",
        "(log_determinant or improves) and rbig",
    ),
    "coupling_log_det_of_the_wrong_sign": (
        """
        from amfvi.experts.flows.elementwise import BoundedAffine
        def flipped(right):
            def wrong(self, v, raw):
                value, log_slope = right(self, v, raw)
                return value, -log_slope
            return wrong
        BoundedAffine.forward = flipped(BoundedAffine.forward)
        BoundedAffine.inverse = flipped(BoundedAffine.inverse)
        """,
        "tests/experts/test_contract.py",
        "integrates and realnvp",
    ),
    "whitening_without_its_jacobian": (
        """
        from amfvi.experts.flows import bijection
        bijection.BijectiveExpert._log_prob = lambda self, x: -bijection.normal_nll(
            *self._to_normal(self.whitening.forward(x).to(x.dtype))
        )
        """,
        "tests/experts/test_contract.py",
        "(integrates or equivariance) and maf",
    ),
    "a_member_that_sees_its_own_fold": (
        """
        import torch
        from amfvi.experts.folds import Folds
        Folds.train_rows = property(
            lambda self: [torch.arange(len(self))] * self.n_members
        )
        """,
        "tests/experts/test_contract.py",
        "never_trains and (maf or rbig)",
    ),
    "weights_by_densities_that_have_seen_the_draws": (
        """
        from amfvi.experts.base import Expert
        Expert.log_prob_optimism_corrected = lambda self, folds: self.log_prob(folds.draws)
        """,
        "tests/two_stage/test_experts.py",
        "overfitted",
    ),
    "masks_that_let_a_coordinate_see_itself": (
        """
        import torch
        from amfvi.experts.flows.flow import Flow
        Flow.masks = property(lambda self: {
            name: torch.ones(shape[1:]) for name, shape in self.shapes(1).items()
        })
        """,
        "tests/experts/test_contract.py",
        "round_trip and maf",
    ),
    "draws_in_blocks_by_expert": (
        """
        import torch
        from amfvi.mixture import Mixture
        right = torch.multinomial
        torch.multinomial = lambda *a, **k: right(*a, **k).sort().values
        """,
        "tests/test_mixture.py",
        "every_stretch",
    ),
    "weights_of_two_experts_swapped": (
        """
        from amfvi import mixture
        right = mixture.Mixture.sample
        def wrong(self, *a, **k):
            straight = self._weights
            self._weights = straight.flip(0)
            try:
                return right(self, *a, **k)
            finally:
                self._weights = straight
        mixture.Mixture.sample = wrong
        """,
        "tests/test_mixture.py",
        "weights_choose or draws_follow",
    ),
    "weights_fitted_in_the_wrong_order": (
        """
        import dataclasses
        from amfvi.two_stage import weights
        right = weights.fit_weights
        def wrong(*a, **k):
            fit = right(*a, **k)
            return dataclasses.replace(fit, weights=fit.weights[::-1])
        weights.fit_weights = wrong
        """,
        "tests/two_stage/test_weights.py",
        "permuting or broken or fails",
    ),
    "constraints_without_their_jacobian": (
        """
        from amfvi.constraints.transform import UnconstrainingTransform
        right = UnconstrainingTransform.to_unconstrained
        def wrong(self, x):
            y, log_det = right(self, x)
            return y, 0 * log_det
        UnconstrainingTransform.to_unconstrained = wrong
        """,
        "tests/test_mixture.py",
        "inside_bounds or bounded",
    ),
    "mmd_that_counts_points_with_themselves": (
        """
        import torch
        torch.Tensor.zero_ = lambda self: self
        """,
        "tests/metrics/test_metrics.py",
        "mmd2",
    ),
    "copies_of_a_row_on_both_sides": (
        """
        import numpy as np
        right = np.unique
        def wrong(a, *rest, **k):
            if k.get("return_inverse") and k.get("return_index"):
                n = len(a)
                return a, np.arange(n), np.arange(n)
            return right(a, *rest, **k)
        np.unique = wrong
        """,
        "tests/two_stage/test_split.py",
        "copies",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Exit status of pytest, the tests that failed, and what was printed."""

    status: int | None
    failed: tuple[str, ...]
    output: str


def run_pytest(bug, *selection):
    """Run tests in a forked process with a bug planted."""
    with tempfile.TemporaryDirectory() as folder:
        log, failed = Path(folder, "log.txt"), Path(folder, "failed.json")
        options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "--basetemp", f"{folder}/tests"]
        script = Path(folder, "planted.py")
        script.write_text(
            SCRIPT.format(
                root=str(ROOT), bug=textwrap.dedent(bug), log=str(log), failed=str(failed),
                arguments=[*options, *selection],
            )
        )  # fmt: skip
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED_BEFORE)
        process = context.Process(target=runpy.run_path, args=[str(script)], daemon=True)
        process.start()
        process.join(TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()
        return Outcome(
            process.exitcode,
            tuple(json.loads(failed.read_text())) if failed.exists() else (),
            log.read_text() if log.exists() else "nothing was run",
        )


@cache
def outcome_under(name):
    """What becomes of the guarding tests under a bug."""
    bug, path, selection = BUGS[name]
    return run_pytest(bug, path, "-k", selection)


SOME = (
    "weights_fitted_in_the_wrong_order", "mmd_that_counts_points_with_themselves",
    "copies_of_a_row_on_both_sides",
    "masks_that_let_a_coordinate_see_itself",
)  # fmt: skip
"""The bugs that are planted in the fast suite, too."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SOME else pytest.mark.slow) for name in BUGS],
)
def test_a_planted_bug_fails_the_suite(name):
    outcome = outcome_under(name)
    assert outcome.status == pytest.ExitCode.TESTS_FAILED, f"not caught:\n{outcome.output}"
    assert outcome.failed


@pytest.mark.parametrize("path", sorted({path for _, path, _ in BUGS.values()}))
@pytest.mark.slow
def test_without_a_bug_the_tests_that_failed_pass(path):
    """So that it is the bug that fails them, not the way they are run."""
    of_path = [name for name, (_, guard, _) in BUGS.items() if guard == path]
    failed = sorted({test for name in of_path for test in outcome_under(name).failed})
    assert failed
    outcome = run_pytest("", *failed)
    assert outcome.status == pytest.ExitCode.OK, outcome.output
