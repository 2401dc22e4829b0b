# SPDX-License-Identifier: MIT
"""Tests share a machine with each other: one thread for torch, and OpenMM's plain CPU platform unless a test names another."""

import os

os.environ.setdefault("OPENMM_DEFAULT_PLATFORM", "CPU")

import torch  # noqa: E402

torch.set_num_threads(1)
