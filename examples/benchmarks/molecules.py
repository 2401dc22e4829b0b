# SPDX-License-Identifier: MIT
"""Write the molecules of the C++ benchmarks: alanine dipeptide in vacuum and in implicit solvent.

    python molecules.py FOLDER
"""
import sys
from pathlib import Path

import numpy as np
import openmm as mm
from openmm import app

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
pdb = app.PDBFile(str(Path(__file__).resolve().parents[1] / "alanine-dipeptide.pdb"))
for name, files in (("vacuum", ["amber14-all.xml"]), ("implicit", ["amber14-all.xml", "implicit/obc2.xml"])):
    system = app.ForceField(*files).createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=None)
    (folder / f"{name}.xml").write_text(mm.XmlSerializer.serialize(system))
    np.savetxt(folder / f"{name}.txt", pdb.positions._value)
