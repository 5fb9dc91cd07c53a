"""The harness itself: bugs that people do write must fail the tests that guard against them.

Each bug is a small plugin that patches the package before pytest runs the guarding
tests in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BUGS = {
    "rbig_log_det_of_the_wrong_sign": (
        """
        from amfvi.experts import rbig
        right = rbig.Layer.forward
        rbig.Layer.forward = lambda self, z: (right(self, z)[0], -right(self, z)[1])
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
        from amfvi.experts import bijection
        bijection.BijectiveExpert._log_prob = lambda self, x: -bijection.normal_nll(
            *self._flow(self.whitening.forward(x).to(x.dtype))
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
            lambda self: [torch.arange(len(self))] * self.members
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
        "tests/test_stage_one.py",
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
        from amfvi import stage_two
        right = stage_two.fit_weights
        def wrong(*a, **k):
            found = right(*a, **k)
            return dataclasses.replace(found, weights=found.weights[::-1])
        stage_two.fit_weights = wrong
        """,
        "tests/test_stage_two.py",
        "permuting or broken or fails",
    ),
    "support_without_its_jacobian": (
        """
        from amfvi.constraints.constraints import Constraints
        right = Constraints.to_unconstrained
        Constraints.to_unconstrained = lambda self, x: (right(self, x)[0], 0 * right(self, x)[1])
        """,
        "tests/test_mixture.py",
        "bounded",
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
        from amfvi import split
        right = np.unique
        def wrong(a, *rest, **k):
            if k.get("return_inverse") and k.get("return_index"):
                n = len(a)
                return a, np.arange(n), np.arange(n)
            return right(a, *rest, **k)
        np.unique = wrong
        """,
        "tests/test_split.py",
        "copies",
    ),
}


def guarding_tests(tmp_path, bug, path, selection):
    lines = [line.removeprefix("        ") for line in bug.splitlines()]
    (tmp_path / "planted.py").write_text("\n".join(lines))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "planted", "-p", "no:cacheprovider",
         path, "-k", selection],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_fails_the_suite(name, tmp_path):
    done = guarding_tests(tmp_path, *BUGS[name])
    assert done.returncode == 1, f"the bug was not caught:\n{done.stdout}{done.stderr}"
    assert " failed" in done.stdout or " error" in done.stdout


def test_without_a_bug_the_same_tests_pass(tmp_path):
    """So that it is the bug that fails them, not the way they are run."""
    for path in sorted({path for _, path, _ in BUGS.values()}):
        selection = " or ".join(f"({s})" for _, p, s in BUGS.values() if p == path)
        done = guarding_tests(tmp_path, "", path, selection)
        assert done.returncode == 0, done.stdout
