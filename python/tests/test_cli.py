# SPDX-License-Identifier: MIT
import argparse
import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
import openmmflow as of
import pytest
import yaml
from openmm import app, unit
from openmmflow import alchemy, cli
from openmmflow.cli import DESCRIPTIONS, main
from openmmflow.config import OPTIONS, RECIPES, UserError, makeParser, parse
from openmmflow.data import TrainingData
from openmmflow.trajectory import repairTrajectory

PDB = str(Path(__file__).parents[2] / "examples" / "alanine-dipeptide.pdb")
SMALL = ["--pdb", PDB, "--quiet", "--seed", "3", "--platform", "Reference", "--constraints", "none"]
TRAIN = [*SMALL, "--num-temperatures", "3", "--highest-temperature", "700", "--frames-per-temperature", "300",
         "--steps-per-frame", "50", "--layers", "4", "--hidden", "32", "--iterations", "200", "--refine-iterations", "20",
         "--samples", "2000"]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """A folder in which a small flow was trained."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(["train", *TRAIN, "--output", str(folder)]) == 0
    return folder


def expectError(capsys, arguments, text):
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("openmm-flow: error: ") and text in lines[0], lines


def parseTrain(*arguments):
    return parse(makeParser(DESCRIPTIONS), ["train", *map(str, arguments)])


def testFlagsWinOverTheFileAndTheFileOverDefaults(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("layers: 6\nlearning-rate: 1e-4\nhidden: [64, 32]\nquiet: true\nsteps: 5\n")
    options = parseTrain("--config", file, "--layers", 4)
    assert (options.layers, options.learning_rate, options.hidden, options.quiet) == (4, 1e-4, [64, 32], True)
    assert options.bins == 8 and not hasattr(options, "steps")  # `steps` is for `run`


def testFilesWinOverRecipesAndRecipesOverDefaults(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("layers: 5\nstages: 3\nrecipe: double-well\n")
    options = parseTrain("--config", file, "--stages", 4)
    assert (options.testsystem, options.layers, options.stages, options.bins) == ("DoubleWell", 5, 4, 8)
    expectError(capsys, ["train", "--recipe", "double-wel"], "there is no recipe double-wel, did you mean double-well?")


@pytest.mark.parametrize("recipe", list(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def testRecipesAreReadWholeAndSayWhatTheyAre(recipe):
    options = parseTrain("--recipe", recipe.stem)
    assert recipe.read_text().startswith("# ") and options.seed > 0
    for name, value in yaml.safe_load(recipe.read_text()).items():
        assert getattr(options, name.replace("-", "_"), None) == (Path(value) if name == "pdb" else value), name


@pytest.mark.parametrize("line, message", [
    ("layer: 6", "unknown option layer, did you mean layers?"),
    ("layers: many", "layers is 'many', but must be a positive integer"),
    ("layers: 2.5", "layers is 2.5, but must be a positive integer"),
    ("layers: [2]", "layers is [2], but must be a positive integer"),
    ("temperature: -3", "temperature is -3, but must be a positive number"),
    ("quiet: 1", "quiet is 1, but must be true or false"),
    ("constraints: AllBonds", "constraints is 'AllBonds', but must be none or HBonds"),
    ("- layers", "must hold lines of the form name: value"),
    ("layers: [", "not valid YAML")])
def testWrongConfigurationFilesAreNamed(tmp_path, line, message):
    file = tmp_path / "config.yaml"
    file.write_text(line + "\n")
    with pytest.raises(UserError) as error:
        parseTrain("--config", file)
    assert message in str(error.value) and str(file) in str(error.value)


def testEveryOptionHasAFlagAndHelp(capsys):
    for command in DESCRIPTIONS:
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        shown = capsys.readouterr().out
        assert all(f"--{option.name}" in shown for option in OPTIONS if command in option.commands.split())


@pytest.mark.parametrize("arguments, text", [
    (["train"], "give --pdb, or --sequence, or --system and --state"),
    (["train", "--pdb", "missing.pdb"], "missing.pdb"),
    (["train", "--pdb", PDB, "--layer", "3"], "unknown argument --layer, did you mean --layers?"),
    (["train", "--pdb", PDB, "--atoms", "0-90"], "the system has 22"),
    (["train", "--pdb", PDB, "--atoms", "x"], "must be like 0-21,30"),
    (["train", "--pdb", PDB, "--forcefield", "nothing.xml"], "nothing.xml"),
    (["run", "--pdb", PDB], "make it with `openmm-flow train`"),
    (["free-energy", "--pdb", PDB], "give --frames"),
    (["info", "--flow", "missing.safetensors"], "missing.safetensors: No such file or directory")])
def testMistakesAreOneLine(tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    expectError(capsys, arguments, text)


def testDebugShowsTheTraceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        main(["train", "--debug"])


def testTrainWritesWhatItPromises(output):
    summary = json.loads((output / "train.json").read_text())
    assert summary["atoms"] == 22 and summary["data"]["frames"] == 900
    assert 0 < summary["flow samples"]["ESS/N"] <= 1
    left, right = (summary["flow samples"]["populations"][name]["value"] for name in ("phi<0", "phi>0"))
    assert left + right == pytest.approx(1)
    page = (output / "train.html").read_text()
    for figure in ("loss.png", "train-diagnosis.png", "train-ramachandran.png", "train-profile.png"):
        assert (output / figure).read_bytes().startswith(b"\x89PNG") and figure in page
    assert not list(output.glob("*tmp*"))


def testTrainingWithoutFramesCools(tmp_path):
    arguments = ["train", *SMALL, "--anneal-from", "600", "--anneal-temperatures", "3", "--layers", "2", "--hidden", "8",
                 "--iterations", "5", "--batch-size", "16", "--refine-iterations", "4", "--refine-batch-size", "20",
                 "--samples", "200", "--output", str(tmp_path)]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "train.json").read_text())
    assert "data" not in summary and summary["training"]["iterations"] == 5 + 2 * 4
    assert summary["training"]["energy evaluations"] == 5 * 16 + 2 * 4 * 20
    assert of.Flow.load(str(tmp_path / "flow.safetensors")).getTemperature() == 300
    first = (tmp_path / "flow.safetensors").read_bytes()
    assert main([*arguments, "--resume"]) == 0  # nothing is left to do
    assert (tmp_path / "flow.safetensors").read_bytes() == first
    assert main([*arguments, "--overwrite", "--refine-iterations", "6"]) == 0  # starts anew
    assert json.loads((tmp_path / "train.json").read_text())["training"]["iterations"] == 5 + 2 * 6


def testATestSystemIsTrainedOnItsEnergyAndJudgedByItsTruth(tmp_path):
    arguments = ["train", "--recipe", "double-well", "--iterations", "40", "--refine-iterations", "40", "--samples", "5000",
                 "--quiet", "--output", str(tmp_path)]
    assert main(arguments) == 0
    found = json.loads((tmp_path / "train.json").read_text())["flow samples"]
    assert abs(found["ln Z"]["value"] - found["ln Z, exact"]) < 4 * found["ln Z"]["standardError"]
    assert 0.3 < found["ESS/N"] <= 1
    assert (tmp_path / "train.html").exists() and (tmp_path / "refining.png").exists()
    diagnosis = json.loads((tmp_path / "train-diagnosis.json").read_text())
    assert set(diagnosis["marginals"]) == {"x0", "x1"} and (tmp_path / "train-diagnosis.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe, size", [("double-well", 0.95), ("gaussian-mixture", 0.9)])
def testRecipesOfTestSystemsFindAllOfTheTarget(recipe, size, tmp_path):
    assert main(["train", "--recipe", recipe, "--quiet", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "train.json").read_text())["flow samples"]
    assert found["ln Z"]["value"] == pytest.approx(found["ln Z, exact"], abs=0.01)
    assert found["ESS/N"] > size
    assert found["part of the target that the flow reaches"] == pytest.approx(1, abs=0.02)


def testResultsAreNotReplacedUnasked(output, capsys):
    before = (output / "flow.safetensors").read_bytes()
    expectError(capsys, ["train", *TRAIN, "--output", output], "exists: give --resume, --overwrite or another --output")
    expectError(capsys, ["train", *TRAIN, "--output", output, "--resume", "--overwrite"], "not both")
    assert (output / "flow.safetensors").read_bytes() == before


def testInfoDescribesAFlow(output, capsys):
    assert main(["info", "--flow", str(output / "flow.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "60 latent variables -> 66 coordinates" in shown and "22 atoms, temperature 300 K" in shown


def testDamagedFlowsAndWrongTemperaturesAreRefused(output, tmp_path, capsys):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((output / "flow.safetensors").read_bytes()[:-1])
    expectError(capsys, ["info", "--flow", damaged], "damaged")
    expectError(capsys, ["evaluate", *SMALL, "--temperature", "310", "--flow", output / "flow.safetensors",
                         "--output", tmp_path], "was trained for 300 K, but --temperature is 310 K")


def run(folder, output, *arguments):
    return main(["run", *SMALL, "--flow", str(output / "flow.safetensors"), "--output", str(folder),
                 "--jump-interval", "20", "--report-interval", "50", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["dcd", "xtc"])
def testRunWritesTrajectoryTablesAndSummary(output, tmp_path, kind):
    assert run(tmp_path, output, "--steps", 2000, "--format", kind) == 0
    trajectory = mdtraj.load(str(tmp_path / f"trajectory.{kind}"), top=PDB)
    assert trajectory.n_frames == 40 and np.isfinite(trajectory.xyz).all()
    jumps = np.genfromtxt(tmp_path / "jumps.csv", delimiter=",", names=True)
    assert len(jumps) == 40 and jumps["step"][-1] == 2000 and jumps["trials"][-1] == 100
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["jumps"]["trials"] == 100 and summary["jumps"]["accepted"] == jumps["accepted"][-1]


@pytest.mark.parametrize("kind", ["dcd", "xtc"])
def testARunThatWasKilledGoesOnWithoutASeam(output, tmp_path, kind):
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert run(whole, output, "--steps", 2000, "--format", kind) == 0
    assert run(part, output, "--steps", 1000, "--format", kind) == 0
    # As if killed after the checkpoint: a table with a further line and a half, a trajectory with half a frame.
    for name in ("jumps.csv", "state.csv"):
        text = (part / name).read_text()
        (part / name).write_text(text + text.splitlines()[-1].replace("1000", "1050", 1) + "\n1100,3")
    with open(part / f"trajectory.{kind}", "ab") as stream:
        stream.write(b"half a frame")
    assert run(part, output, "--steps", 2000, "--format", kind, "--resume") == 0
    for name in (f"trajectory.{kind}", "jumps.csv"):
        if name == "jumps.csv":
            first, second = ((folder / name).read_text().splitlines() for folder in (whole, part))
            assert [line.split(",")[0] for line in first] == [line.split(",")[0] for line in second]
        else:
            frames = [mdtraj.load(str(folder / name), top=PDB).xyz for folder in (whole, part)]
            np.testing.assert_array_equal(*frames)


def testCtrlCLeavesAResumableRunAndExitCode130(output, tmp_path):
    arguments = ["run", *SMALL, "--flow", str(output / "flow.safetensors"), "--output", str(tmp_path), "--steps",
                 "100000000", "--report-interval", "50"]
    process = subprocess.Popen([sys.executable, "-m", "openmmflow.cli", *arguments], stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not (tmp_path / "jumps.csv").exists() or (tmp_path / "jumps.csv").read_text().count("\n") < 5:
        assert time.monotonic() < limit and process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in message and "Traceback" not in message
    done = int((tmp_path / "jumps.csv").read_text().splitlines()[-1].split(",")[0])
    assert run(tmp_path, output, "--steps", done + 500, "--resume", "--jump-interval", 100) == 0


def testTuneProposesAProtocolThatRunTakes(output, tmp_path, capsys):
    assert main(["tune", *SMALL, "--flow", str(output / "flow.safetensors"), "--output", str(tmp_path), "--pilots", "2x1", "4x2",
                 "--pilot-jumps", "6", "--pilot-interval", "5"]) == 0
    summary = json.loads((tmp_path / "tune.json").read_text())
    assert set(summary["pilots"]) == {"2x1", "4x2"} and summary["pilots"]["4x2"]["jumps"] == 6
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    protocol = yaml.safe_load((tmp_path / "protocol.yaml").read_text())
    assert protocol["path"] == "density" and len(protocol["parameters"]["annealedEnergy"]) == summary["proposed"]["stages"] + 1
    assert protocol["parameters"]["annealedEnergy"][0] == 1 and protocol["parameters"]["annealedEnergy"][-1] == 0
    short = tmp_path / "short.yaml"
    protocol["parameters"], protocol["stepsPerStage"] = {"annealedEnergy": [1, 0.5, 0], "annealedDensity": [0, 0.5, 1]}, 1
    short.write_text(yaml.safe_dump(protocol))
    assert run(tmp_path / "run", output, "--steps", 100, "--protocol", short) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["jumps"]["trials"] == 5
    short.write_text("path: magic\n")
    expectError(capsys, ["run", *SMALL, "--flow", str(output / "flow.safetensors"), "--output", str(tmp_path / "other"),
                         "--protocol", str(short)], "path is 'magic', but must be density or heating or alchemical")
    expectError(capsys, ["tune", *SMALL, "--pilots", "3"], "--pilots is '3', but must be a STAGESxSTEPS such as 8x10")


def testStagesOfEachPath():
    system = mm.System()
    system.addForce(mm.CustomBondForce("r"))
    system.getForce(0).setName(alchemy.STERIC_FORCE)
    options = argparse.Namespace(stage_dynamics="Langevin", friction=2.0, stage_timestep=None, heating_factor=4.0,
                                 last_electrostatics=0.0, last_sterics=0.5)
    make = functools.partial(cli.makeStages, options, system, stages=2, steps=7, timestep=0.001)
    assert alchemy.parametersOf(make("heating")) == {"annealedEnergy": pytest.approx([1, 0.5, 0.25])}
    assert alchemy.parametersOf(make("density"))["annealedDensity"] == [0, 0.5, 1]
    assert alchemy.parametersOf(make("alchemical")) == {"soluteElectrostatics": [1, 0, 0], "soluteSterics": [1, 1, 0.5]}
    options.last_electrostatics, options.last_sterics = 0.2, 1.0
    assert alchemy.parametersOf(make("alchemical")) == {"soluteElectrostatics": pytest.approx([1, 0.6, 0.2])}
    assert make("heating").getStepsPerStage() == 7 and make("heating").getStageDynamics() == of.StageDynamics.Langevin


def testEvaluateAndFreeEnergy(output, tmp_path, capsys):
    common = [*SMALL, "--flow", str(output / "flow.safetensors"), "--frames", str(output / "data.npz"), "--samples",
              "4000", "--region", "beta=phi:-180:-105", "alpha=phi:-105:-30", "--output", str(tmp_path)]
    assert main(["evaluate", *common]) == 0
    summary = json.loads((tmp_path / "evaluate.json").read_text())
    assert set(summary["flow samples"]["populations"]) == {"beta", "alpha"}
    diagnosis = json.loads((tmp_path / "evaluate-diagnosis.json").read_text())
    assert diagnosis["ESS/N"]["forward"] == summary["ESS/N from data"] and diagnosis["data"]["frames"] == 300
    assert {"phi", "psi", "CA-C 2", "N-CA-C 2"} <= set(diagnosis["marginals"])
    assert len(diagnosis["marginals"]) == 21 + 36 + 7  # bonds, angles, torsions
    costs = diagnosis["cost of an independent sample"]
    assert costs["plain dynamics"]["energyEvaluations"] > 3 * 50 and costs["plain dynamics"]["cpuSeconds"] > 0
    assert costs["flow"]["energyEvaluations"] == pytest.approx(1 / diagnosis["ESS/N"]["reverse"])
    assert (tmp_path / "evaluate-diagnosis.png").exists()
    assert "evaluate-diagnosis.png" in (tmp_path / "evaluate.html").read_text()
    shown = capsys.readouterr().out
    assert all(f"{verdict['finding']}. {verdict['advice']}." in shown for verdict in diagnosis["verdicts"])
    assert main(["free-energy", *common]) == 0
    result = json.loads((tmp_path / "free-energy.json").read_text())["F(alpha) - F(beta) in kT by BAR"]
    assert 0 < result["standardError"] < 1 and result["A"]["numForward"] == 2000


def testFramesOfAnotherTemperatureAreRefused(output, tmp_path, capsys):
    data = TrainingData.load(output / "data.npz")
    data.temperature = 350.0
    data.save(tmp_path / "warm.npz")
    expectError(capsys, ["evaluate", *SMALL, "--flow", output / "flow.safetensors", "--frames", tmp_path / "warm.npz", "--output", tmp_path],
                "is for 350 K, but --temperature is 300 K")


def testAFlowOfAnotherMoleculeIsRefused(output, tmp_path, capsys):
    expectError(capsys, ["evaluate", "--sequence", "AA", "--constraints", "none", "--quiet", "--flow", output / "flow.safetensors",
                         "--output", tmp_path], "was made for the atoms H C H H C O N H C H C")


def testSolventHasToBeTold(tmp_path, capsys):
    pdb = app.PDBFile(PDB)
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(app.ForceField("amber14-all.xml", "amber14/tip3p.xml"), boxSize=mm.Vec3(2, 2, 2) * unit.nanometer)
    with open(tmp_path / "water.pdb", "w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file)
    expectError(capsys, ["train", "--pdb", tmp_path / "water.pdb", "--output", tmp_path / "out"],
                "has solvent in a periodic box: give --cutoff (nm)")
    system = mm.System()
    system.addParticle(12.0)
    system.addForce(mm.NonbondedForce())
    system.getForce(0).addParticle(0, 0.3, 0)
    system.getForce(0).setNonbondedMethod(mm.NonbondedForce.PME)
    (tmp_path / "system.xml").write_text(mm.XmlSerializer.serialize(system))
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions([[0, 0, 0]])
    (tmp_path / "state.xml").write_text(mm.XmlSerializer.serialize(context.getState(positions=True)))
    expectError(capsys, ["train", "--system", tmp_path / "system.xml", "--state", tmp_path / "state.xml", "--output", tmp_path / "out"],
                "does not say which atoms are solvent: give --atoms, or --pdb")


def testARunIsAtLeastAsLongAsItsReports(output, tmp_path, capsys):
    expectError(capsys, ["run", *SMALL, "--flow", output / "flow.safetensors", "--output", tmp_path, "--steps", 200],
                "--steps is 200, but must be at least --report-interval, 1000")


def testFreeEnergyOfTheSystemItself(output, tmp_path):
    assert main(["free-energy", *SMALL, "--flow", str(output / "flow.safetensors"), "--frames", str(output / "data.npz"), "--samples",
                 "3000", "--absolute", "--output", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "free-energy.json").read_text())["F = -ln Z in kT by BAR"]
    assert np.isfinite(result["value"]) and 0 < result["standardError"] < 2 and result["numForward"] == 3000
    assert "less their rigid motions, in nm^63" in result["measure"] and result["verdict"]


def testFreeEnergyBetweenTwoSolventsOnFramesThatAreMade(tmp_path, capsys):
    pytest.importorskip("PeptideBuilder")
    arguments = ["free-energy", "--sequence", "A", "--systems", "vacuum", "implicit", "--constraints", "none", "--quiet", "--seed", "3",
                 "--platform", "Reference", "--num-temperatures", "2", "--highest-temperature", "350", "--frames-per-temperature", "120",
                 "--steps-per-frame", "20", "--map-layers", "2", "--map-hidden", "8", "--map-iterations", "20",
                 "--output", str(tmp_path)]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "free-energy.json").read_text())
    result = summary["F(implicit) - F(vacuum) in kT by BAR"]
    assert -40 < result["value"] < -10 and result["stages"] == 1 and "few samples" in result["verdict"]
    assert summary["frames of B"]["frames"] == 120 and summary["frames of B"]["energy evaluations"] == 2 * 132 * 20
    assert summary["training"]["CPU minutes"] > 0 and (tmp_path / "loss2.png").exists()
    capsys.readouterr()
    expectError(capsys, arguments, "free-energy.json exists: give --resume, --overwrite or another --output")
    assert main([*arguments, "--resume", "--work-stages", "2"]) == 0
    again = json.loads((tmp_path / "free-energy.json").read_text())
    assert again["F(implicit) - F(vacuum) in kT by BAR"]["stages"] == 2 and again["frames of B"] == summary["frames of B"]


def testFreeEnergyBetweenTwoSystemsOnGivenFrames(output, tmp_path, capsys):
    pdb, files = app.PDBFile(PDB), []
    for name, scale in (("A", 1.0), ("B", 0.95)):
        system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=None)
        bonds = next(force for force in system.getForces() if isinstance(force, mm.HarmonicBondForce))
        for i in range(bonds.getNumBonds()):
            *pair, length, strength = bonds.getBondParameters(i)
            bonds.setBondParameters(i, *pair, length, scale * strength)
        files.append(str(tmp_path / f"{name}.xml"))
        Path(files[-1]).write_text(mm.XmlSerializer.serialize(system))
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(pdb.positions)
    (tmp_path / "state.xml").write_text(mm.XmlSerializer.serialize(context.getState(positions=True)))
    frames = [str(output / "data.npz")] * 2
    arguments = ["free-energy", "--systems", *files, "--state", str(tmp_path / "state.xml"), "--frames", *frames, "--quiet", "--seed", "3",
                 "--platform", "Reference", "--map-layers", "2", "--map-hidden", "8", "--map-iterations", "5", "--output", str(tmp_path)]
    assert main(arguments) == 0
    result = json.loads((tmp_path / "free-energy.json").read_text())[f"F({files[1]}) - F({files[0]}) in kT by BAR"]
    assert -2 < result["value"] < 0 and result["overlap"] > 0.3
    for change, text in ((["--absolute"], "give --systems, --absolute or --region"), (["--frames", frames[0]], "must be two: one for each"),
                         (["--systems", files[0]], "there are 1 --systems, but must be two")):
        expectError(capsys, [*arguments, "--overwrite", *change], text)


def testEvaluateWithoutFramesSaysWhatItCannotSee(output, tmp_path, capsys):
    assert main(["evaluate", *SMALL, "--flow", str(output / "flow.safetensors"), "--samples", "2000", "--independent-steps", "5000",
                 "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    expectError(capsys, ["evaluate", *SMALL, "--flow", output / "flow.safetensors", "--frames", output / "data.npz", "--discard", 280,
                         "--output", tmp_path / "few"], "--frames holds 20 frames, but must hold at least 25")
    assert "no data: what the flow has dropped can't be seen" in shown
    diagnosis = json.loads((tmp_path / "evaluate-diagnosis.json").read_text())
    assert "data" not in diagnosis and diagnosis["cost of an independent sample"]["plain dynamics"]["energyEvaluations"] == 5000


def testSystemAndStateReplaceAPdb(output, tmp_path, capsys):
    pdb = app.PDBFile(PDB)
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=None)
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(pdb.positions)
    (tmp_path / "system.xml").write_text(mm.XmlSerializer.serialize(system))
    (tmp_path / "state.xml").write_text(mm.XmlSerializer.serialize(context.getState(positions=True)))
    arguments = ["evaluate", "--quiet", "--platform", "Reference", "--flow", output / "flow.safetensors",
                 "--samples", 500, "--output", tmp_path, "--torsion", "turn=4-6-8-14", "--region", "up=turn:0:180", "--system"]
    assert main([str(a) for a in [*arguments, tmp_path / "system.xml", "--state", tmp_path / "state.xml"]]) == 0
    capsys.readouterr()
    expectError(capsys, [*arguments, tmp_path / "state.xml", "--state", tmp_path / "state.xml", "--overwrite"],
                "must hold a System")
    (tmp_path / "cut.xml").write_text(mm.XmlSerializer.serialize(system)[:-30])
    expectError(capsys, [*arguments, tmp_path / "cut.xml", "--state", tmp_path / "state.xml", "--overwrite"],
                "not valid XML")


@pytest.mark.parametrize("kind, reporter", [("dcd", app.DCDReporter), ("xtc", app.XTCReporter)])
def testRepairingATrajectoryKeepsTheFirstFrames(tmp_path, kind, reporter):
    pdb = app.PDBFile(PDB)
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=None)
    simulation = app.Simulation(pdb.topology, system, mm.LangevinMiddleIntegrator(300, 1, 0.001),
                                mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(pdb.positions)
    file = tmp_path / f"trajectory.{kind}"
    simulation.reporters.append(reporter(str(file), 5))
    simulation.step(50)
    del simulation.reporters[:]
    before = mdtraj.load(str(file), top=PDB)
    repairTrajectory(file, 7)
    np.testing.assert_array_equal(mdtraj.load(str(file), top=PDB).xyz, before.xyz[:7])
    with pytest.raises(UserError, match="fewer frames"):
        repairTrajectory(file, 8)
    simulation.reporters.append(reporter(str(file), 5, append=True))
    simulation.step(10)
    del simulation.reporters[:]
    assert mdtraj.load(str(file), top=PDB).n_frames == 9
    with pytest.raises(UserError, match="does not exist"):
        repairTrajectory(tmp_path / f"missing.{kind}", 1)
