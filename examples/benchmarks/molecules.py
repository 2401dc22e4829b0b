# SPDX-License-Identifier: MIT
"""The molecule of the benchmarks, alanine dipeptide, and a flow that is trained for it once.

    python molecules.py FOLDER    # writes the Systems of the C++ benchmarks
"""
import sys
from pathlib import Path

import numpy as np
import openmm as mm
from openmm import app

PDB = app.PDBFile(str(Path(__file__).resolve().parents[1] / "alanine-dipeptide.pdb"))
FORCEFIELDS = {"vacuum": ["amber14-all.xml"], "implicit": ["amber14-all.xml", "implicit/obc2.xml"]}
PHI = [4, 6, 8, 14]


def makeSystem(name="vacuum"):
    """All bonds are free."""
    return app.ForceField(*FORCEFIELDS[name]).createSystem(PDB.topology, nonbondedMethod=app.NoCutoff, constraints=None)


def trainedFlow(folder, short=False):
    """A BoltzmannGenerator in vacuum at 300 K: trained, some CPU minutes, unless there is one in the folder."""
    from openmmflow import BoltzmannGenerator, temperedData
    from openmmflow.data import geometricTemperatures

    file = folder / f"alanine-dipeptide{'-short' if short else ''}.safetensors"
    if file.exists():
        return BoltzmannGenerator(str(file), makeSystem(), PDB.positions)
    frames, fit, refine = (600, 60, 20) if short else (8000, 800, 500)
    data = temperedData(makeSystem(), PDB.positions, geometricTemperatures(300, 1000, 6), framesPerTemperature=frames,
                        stepsPerFrame=50, stepSize=0.001, seed=1, progress=False)
    generator = BoltzmannGenerator.fromTopology(PDB.topology, makeSystem(), PDB.positions, 300, data=data, seed=2)
    histories = [generator.fit(data, iterations=fit, seed=3, progress=False), generator.refine(iterations=refine, seed=4, progress=False)]
    minutes = data.cpuMinutes + sum(history.cpuMinutes for history in histories)
    generator.flow.setMetadata("CPU minutes", str(minutes))
    generator.save(str(file))
    return generator


def writeSystems(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in FORCEFIELDS:
        (folder / f"{name}.xml").write_text(mm.XmlSerializer.serialize(makeSystem(name)))
        np.savetxt(folder / f"{name}.txt", PDB.positions._value)


if __name__ == "__main__":
    writeSystems(Path(sys.argv[1]))
