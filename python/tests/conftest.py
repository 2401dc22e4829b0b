# SPDX-License-Identifier: MIT
"""Tests share a machine with each other: one thread for torch, and OpenMM's plain CPU platform unless a test names another."""

import os
import signal

os.environ.setdefault("OPENMM_DEFAULT_PLATFORM", "CPU")

import torch  # noqa: E402

torch.set_num_threads(1)

# A shell that starts the tests in the background has Ctrl-C ignored, in all that they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
