# SPDX-License-Identifier: MIT
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import openmm as mm
import openmmflow as of
import pytest
import torch
from openmmflow._cuda import KERNELS, PLUGIN, CudaFacts, collectCudaFacts, findPlatformProblem, findTensorProblem

COMPLETE = CudaFacts(driver="13.1", torch="13.0", openmm="13", devices=1, libraries=frozenset({KERNELS, PLUGIN}))


def testNothingIsMissingWhereAllIsThere():
    assert findTensorProblem(COMPLETE) is None
    assert findPlatformProblem(COMPLETE) is None


@pytest.mark.parametrize("change, tensors, platform", [
    ({"driver": None, "devices": 0}, "no NVIDIA driver", "no NVIDIA driver"),
    ({"driver": "12.8", "devices": 0}, "knows CUDA 12.8, but torch is built for CUDA 13.0: update the driver",
     "knows CUDA 12.8, but OpenMM's CUDA Platform is built for CUDA 13: update the driver"),
    ({"torch": None, "devices": 0}, "torch is built for processors only", None),
    ({"torch": "12.6"}, None, "torch is built for CUDA 12.6, but OpenMM's CUDA Platform for CUDA 13: install OpenMM-CUDA-12"),
    ({"openmm": None}, None, "OpenMM's CUDA Platform is not installed"),
    ({"devices": 0}, "torch finds no CUDA device", None),
    ({"libraries": frozenset()}, f"has no {KERNELS}", f"has no {PLUGIN}"),
])
def testMessageNamesWhatIsMissing(change, tensors, platform):
    facts = replace(COMPLETE, **change)
    for found, expected in ((findTensorProblem(facts), tensors), (findPlatformProblem(facts), platform)):
        assert found is None if expected is None else expected in found


def testFactsAreThoseOfThisMachine():
    facts = collectCudaFacts(Path(of.__file__).parent)
    assert facts.torch == torch.version.cuda
    assert facts.devices == (torch.cuda.device_count() if torch.version.cuda else 0)
    described = of.describePlatforms()
    if findTensorProblem(facts) is None:
        assert described["CUDA tensors"] == "fused kernels"
    else:
        assert findTensorProblem(facts) in described["CUDA tensors"]
    if findPlatformProblem(facts) is not None:
        assert findPlatformProblem(facts) in described["CUDA"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def testFlowSaysThatThereIsNoDevice():
    flow = of.Flow(of.GaussianPrior(2), of.ExpScaling(2))
    with pytest.raises(Exception, match="Flow::to: cuda: "):
        flow.to("cuda")
    assert flow.to("cpu").getDevice() == "cpu"


@pytest.mark.parametrize("name", [KERNELS, PLUGIN])
def testLibraryFindsItsSymbols(name):
    library = Path(of.__file__).parent / name
    if not library.exists():
        pytest.skip(f"this build has no {name}")
    openmm, torchFolder = Path(mm.version.openmm_library_path), Path(torch.__file__).parent
    folders = [library.parent, openmm, openmm / "plugins", torchFolder / "lib", *torchFolder.parent.glob("nvidia/*/lib"),
               Path("/usr/local/cuda/lib64")]
    result = subprocess.run(["ldd", "-r", library], capture_output=True, text=True, check=False,
                            env=os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, folders))})
    said = result.stdout + result.stderr
    assert "libOpenMM.so =>" in said
    assert set(re.findall(r"(\S+) => not found", said)) <= {"libcuda.so.1"}
    undefined = re.findall(r"undefined symbol: (\w+)", said)
    assert [symbol for symbol in undefined if not re.match("cu[A-Z]", symbol)] == []  # all but the driver's
