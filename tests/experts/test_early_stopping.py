"""Early stopping: the best step, the reason for the end, the fraction done."""

from __future__ import annotations

import math

import pytest

from amfvi.experts.training.early_stopping import EarlyStopping, StopReason


def run(heldout_nlls, **options):
    stopping = EarlyStopping(**{"patience": 3, "max_steps": 100, **options})
    for step, nll in enumerate(heldout_nlls):
        stopping.record(step, 0.0, nll)
        if stopping.should_stop():
            break
    return stopping


def test_it_stops_after_patience_records_without_improvement_and_knows_the_best():
    stopping = run([5.0, 2.0, 3.0, 1.0, 1.0, 1.5, 1.2, 0.0])
    assert stopping.reason is StopReason.CONVERGED
    assert (stopping.best_step, stopping.best_nll) == (3, 1.0)
    report = stopping.report()
    assert report.converged
    assert [record.step for record in report.history] == list(range(7))
    assert report.heldout_nll == 1.0


def test_nan_is_no_improvement():
    stopping = run([2.0, math.nan, math.nan, math.nan])
    assert stopping.reason is StopReason.CONVERGED
    assert stopping.best_step == 0


@pytest.mark.parametrize(
    ("options", "reason", "text"),
    [
        ({"max_steps": 2}, StopReason.MAX_STEPS, "max_steps"),
        ({"max_steps": 2, "limit_name": "max_layers"}, StopReason.MAX_STEPS, "max_layers"),
        ({"timeout": 0.0}, StopReason.TIMEOUT, "timeout"),
    ],
)
def test_limits_are_not_convergence(options, reason, text):
    stopping = run([3.0, 2.0, 1.0, 0.0], **options)
    assert stopping.reason is reason
    assert (stopping.report().stopped_by, stopping.report().converged) == (text, False)


def test_convergence_at_the_last_step_is_convergence():
    assert run([1.0, 2.0, 2.0, 2.0], max_steps=3).reason is StopReason.CONVERGED


def test_progress_is_the_fraction_of_the_last_step_and_the_best_so_far():
    calls = []
    run([3.0, 1.0, 2.0], max_steps=4, progress=lambda fraction, nll: calls.append((fraction, nll)))
    assert calls == [(0.25, 1.0), (0.5, 1.0)]


def test_a_fit_that_goes_on_has_no_report():
    stopping = run([3.0, 2.0])
    with pytest.raises(RuntimeError, match="has not ended"):
        stopping.report()


def test_patience_starts_anew():
    stopping = EarlyStopping(patience=1, max_steps=10)
    stopping.record(0, 0.0, 1.0)
    stopping.record(1, 0.0, 2.0)
    assert stopping.out_of_patience
    stopping.restart_patience(2)
    stopping.record(2, 0.0, 2.0)
    assert not stopping.out_of_patience
    stopping.record(3, 0.0, 2.0)
    assert stopping.out_of_patience


def falling(to, rate, steps):
    """A curve that falls from 10 above ``to`` and flattens."""
    return [to + 10 * math.exp(-rate * step) for step in range(steps)]


@pytest.mark.parametrize(
    ("rival_nll", "is_out_of_reach"),
    [(None, False), (-1.0, True), (2.0, False), (4.0, False)],
)
def test_a_fit_that_cannot_reach_another_is_told(rival_nll, is_out_of_reach):
    """The curve falls to 1; what it may still gain is estimated from above."""
    stopping = EarlyStopping(patience=100, max_steps=100, rival_nll=rival_nll)
    for step, nll in enumerate(falling(1.0, 0.1, 80)):
        stopping.record(step, 0.0, nll)
        if step < 29:  # too early to tell
            assert not stopping.out_of_reach
    assert stopping.out_of_reach is is_out_of_reach


@pytest.mark.parametrize("rate", [0.01, 0.03, 0.1, 1.0])
def test_a_fit_that_will_reach_another_is_never_given_up(rate):
    curve = falling(1.0, rate, 101)
    stopping = EarlyStopping(patience=1000, max_steps=100, rival_nll=curve[-1] + 1e-9)
    for step, nll in enumerate(curve):
        stopping.record(step, 0.0, nll)
        assert not stopping.out_of_reach


@pytest.mark.parametrize(
    ("rival_nll", "told_at"), [(None, None), (2.9, 4), (3.1, 8), (4.9, 8), (5.1, None)]
)
def test_each_doubling_of_components_gains_at_most_what_the_last_did(rival_nll, told_at):
    """From 7 at 4 components, a nat less than at 2, 3 at the least at 64; from 6.5 at 8, 5."""
    stopping = EarlyStopping(patience=9, max_steps=64, rival_nll=rival_nll, by_doublings=True)
    told = []
    for step, nll in ((1, 10.0), (2, 8.0), (4, 7.0), (8, 6.5)):
        stopping.record(step, 0.0, nll)
        if stopping.out_of_reach:
            told.append(step)
    assert told[:1] == ([] if told_at is None else [told_at])


def test_the_first_of_sizes_tells_nothing():
    stopping = EarlyStopping(patience=9, max_steps=64, rival_nll=0.0, by_doublings=True)
    stopping.record(12, 0.0, 100.0)
    assert not stopping.out_of_reach
