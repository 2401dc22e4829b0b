# SPDX-License-Identifier: MIT
"""Tests share a machine with each other: one thread for torch and for OpenMM's CPU platform, which serves unless a test names another."""

import os
import signal
import threading
import time

import pytest

os.environ.setdefault("OPENMM_DEFAULT_PLATFORM", "CPU")
os.environ.setdefault("OPENMM_CPU_THREADS", "1")

import torch  # noqa: E402

torch.set_num_threads(1)

# A shell that starts the tests in the background has Ctrl-C ignored, in all that they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def turnsOfOtherThread():
    """turnsOfOtherThread(action): how often another thread of Python had its turn while the action ran."""
    def turns(action):
        count, done = 0, threading.Event()

        def countUp():
            nonlocal count
            while not done.is_set():
                count += 1
                time.sleep(1e-4)

        thread = threading.Thread(target=countUp)
        thread.start()
        try:
            before = count
            action()
            return count - before
        finally:
            done.set()
            thread.join()

    return turns
