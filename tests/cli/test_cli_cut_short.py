"""What ends a command early: signals, full disks, closed pipes."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

import pytest

QUICK = ("--experts", "rbig", "--no-figures")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path, sent, code):
    running = subprocess.Popen(
        [sys.executable, "-m", "amfvi", "fit", "--target", "rings", "--n-draws", "20000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Logged when stage one begins.
    assert "2 parameters, 20000 draws in 5 folds" in running.stderr.readline()
    running.send_signal(sent)
    _, err = running.communicate(timeout=300)
    assert running.returncode == code
    assert err.splitlines()[-1] == "amfvi: error: interrupted; no run was written"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_command_that_writes_no_run_says_so_in_a_word(finished, cli, monkeypatch):
    from amfvi.posterior import Posterior

    monkeypatch.setattr(Posterior, "sample", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    code, _, err = cli("sample", finished[0])
    assert (code, err) == (130, "amfvi: error: interrupted\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no copies of a process")
def test_a_worker_of_a_users_pool_ends_when_told_to(finished, cli, monkeypatch):
    """A worker may be inside code that swallows every exception; its pool waits for it."""
    from amfvi.posterior import Posterior

    fork = multiprocessing.get_context("fork")
    codes = []

    def sample(*_):
        ready = fork.Event()
        worker = fork.Process(target=_swallow_everything, args=(ready,))
        worker.start()
        ready.wait()
        worker.terminate()
        worker.join(60)
        codes.append(worker.exitcode)
        worker.kill()
        raise KeyboardInterrupt

    monkeypatch.setattr(Posterior, "sample", sample)
    cli("sample", finished[0], "-n", 10)
    assert codes == [-signal.SIGTERM]


def _swallow_everything(ready):
    while True:
        try:
            ready.set()
            time.sleep(60)
        except BaseException:
            continue


def test_a_disk_that_is_full_is_an_error_of_its_own(cli, monkeypatch, tmp_path):
    """While tensors are written, safetensors raises a class of its own."""
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("amfvi.saving.save_file", full)
    code, out, err = cli("fit", "--target", "rings", "--n-draws", 300, "--quiet", *QUICK)
    assert (code, out) == (3, "")
    assert err.startswith("amfvi: error: ")
    assert "rings-0: cannot be written (Error while serializing: I/O error: No space" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize(
    "command",
    [["sample", "-n", "10"], pytest.param(["summary", "--json"], marks=pytest.mark.slow)],
)
def test_a_full_disk_behind_stdout_is_an_error_of_its_own(finished, command):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "amfvi", command[0], finished[0], *command[1:]],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert re.fullmatch("amfvi: error: cannot be written .*No space left.*\n", done.stderr)


def test_a_closed_pipe_is_no_error(finished):
    done = subprocess.run(
        f"{sys.executable} -m amfvi sample {finished[0]} -n 100000 | head -n 1",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "x1,x2\n"
    assert done.stderr == ""
