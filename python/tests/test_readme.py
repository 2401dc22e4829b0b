# SPDX-License-Identifier: MIT
"""The README shows code that runs: its blocks are parts of the examples, and the examples are run here."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("[0-9]*.py"))


def readBlocks(language):
    """(file named in the comment above it or None, text) of each block of a language."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return [(found[1], found[2]) for found in
            re.finditer(rf"(?:<!-- from (\S+) -->\n)?```{language}\n(.*?)```", text, re.DOTALL)]


def testEveryPythonBlockIsPartOfTheExampleItNames():
    blocks = readBlocks("python")
    assert blocks
    for file, block in blocks:
        assert file is not None, f"this block names no file:\n{block}"
        assert block.strip() and block in (REPOSITORY / file).read_text(encoding="utf-8"), f"differs from {file}:\n{block}"


def testEveryScriptThatABashBlockCallsExists():
    called = [script for _, block in readBlocks("bash") for script in re.findall(r"bash (\S+)", block)]
    assert called
    for script in called:
        assert (REPOSITORY / script).is_file(), script


def testEveryLinkLeadsSomewhere():
    links = re.findall(r"\]\((?!http)([^)]+)\)", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (REPOSITORY / link).exists(), link


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def testExampleIsShort(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) < 80


@pytest.mark.slow
def testExamplesRunOneAfterAnother(tmp_path):
    pytest.importorskip("openmmflow")
    assert len(EXAMPLES) >= 3
    for file in EXAMPLES:
        done = subprocess.run([sys.executable, file], cwd=tmp_path, text=True, capture_output=True,
                              env=os.environ | {"OPENMM_DEFAULT_PLATFORM": "CPU", "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, f"{file.name}:\n{done.stderr[-3000:]}"
    for product in ("flow.safetensors", "ramachandran.png", "trajectory.dcd", "jumps.csv"):
        assert (tmp_path / product).stat().st_size > 0
