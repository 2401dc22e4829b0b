# SPDX-License-Identifier: MIT
"""Cutting trajectories back to a checkpoint, so that a run that was killed goes on without a seam."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from .config import UserError

_DCD_HEADER = 276


def repairTrajectory(file: Path, frames: int) -> None:
    """Keep the first `frames` frames of a DCD or XTC file that OpenMM wrote; what follows may be cut short."""
    if not file.exists():
        raise UserError(f"{file} does not exist, though the checkpoint says that the run has begun")
    if file.suffix == ".dcd":
        _repairDcd(file, frames)
    else:
        _repairXtc(file, frames)


def _repairDcd(file: Path, frames: int) -> None:
    with open(file, "r+b") as stream:
        header = stream.read(_DCD_HEADER)
        if len(header) < _DCD_HEADER or header[4:8] != b"CORD":
            raise UserError(f"{file} is not a DCD file that OpenMM wrote")
        periodic, = struct.unpack("<i", header[48:52])
        atoms, = struct.unpack("<i", header[268:272])
        frameSize = 3 * (4 * atoms + 8) + (56 if periodic else 0)
        size = _DCD_HEADER + frames * frameSize
        if os.fstat(stream.fileno()).st_size < size:
            raise UserError(f"{file} has fewer frames than the checkpoint says: {frames}")
        stream.truncate(size)
        stream.seek(8)
        stream.write(struct.pack("<i", frames))


def _repairXtc(file: Path, frames: int) -> None:
    from mdtraj.formats import XTCTrajectoryFile

    temporary = file.with_suffix(".tmp.xtc")
    with XTCTrajectoryFile(str(file)) as old, XTCTrajectoryFile(str(temporary), "w") as new:
        copied = 0
        while copied < frames and len((part := old.read(min(1000, frames - copied)))[0]):
            new.write(*part)
            copied += len(part[0])
    if copied < frames:
        temporary.unlink()
        raise UserError(f"{file} has fewer frames than the checkpoint says: {frames}")
    os.replace(temporary, file)
