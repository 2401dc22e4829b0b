# SPDX-License-Identifier: MIT
"""The options of the command line: one table that makes the flags, checks the YAML files and holds the defaults."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can put right: shown as one line."""


@dataclass(frozen=True)
class Option:
    """A flag --name and a YAML key `name`. kind makes a value from text; many takes a list; bool is a switch."""

    name: str
    kind: Callable[[Any], Any]
    default: Any
    help: str
    commands: str
    many: bool = False

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")


def positive(kind: type) -> Callable[[Any], Any]:
    """A number above 0."""
    def convert(value: Any) -> Any:
        number = kind(value)
        if not 0 < number < float("inf") or number != float(value):
            raise ValueError
        return number
    convert.__name__ = f"positive {'integer' if kind is int else 'number'}"
    return convert


def natural(value: Any) -> int:
    """An integer from 0."""
    number = int(value)
    if number < 0 or number != float(value):
        raise ValueError
    return number


def fraction(value: Any) -> float:
    """A number from 0 to 1."""
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError
    return number


def several(value: Any) -> int:
    """An integer from 2."""
    number = natural(value)
    if number < 2:
        raise ValueError
    return number


def pilot(value: Any) -> str:
    """STAGESxSTEPS, such as 8x10."""
    stages, steps = map(count, str(value).split("x"))
    return f"{stages}x{steps}"


pilot.__name__ = "STAGESxSTEPS such as 8x10"


def oneOf(*names: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in names:
            raise ValueError
        return value
    convert.__name__ = " or ".join(names)
    return convert


count, number = positive(int), positive(float)
_ALL, _WORK = "train run tune evaluate free-energy info", "train run tune evaluate free-energy"

RECIPES = Path(__file__).parent / "recipes"

OPTIONS = (
    Option("recipe", str, None, "ready-made options: " + ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml"))),
           _WORK),
    Option("pdb", Path, None, "PDB file: topology and positions", _WORK),
    Option("forcefield", str, ["amber14-all.xml"], "OpenMM force field files, for --pdb", _WORK, many=True),
    Option("sequence", str, None, "a capped peptide by one-letter codes, such as A, in place of --pdb and --forcefield", _WORK),
    Option("solvent", oneOf("vacuum", "implicit", "explicit"), "vacuum", "for --sequence: vacuum, implicit or explicit", _WORK),
    Option("constraints", oneOf("none", "HBonds"), "HBonds", "bonds held rigid, unless --system: none or HBonds", _WORK),
    Option("cutoff", number, None, "nonbonded cutoff in nm (PME in a periodic box); none by default", _WORK),
    Option("system", Path, None, "System XML file, in place of --pdb and --forcefield", _WORK),
    Option("state", Path, None, "State XML file with positions and box, for --system", _WORK),
    Option("atoms", str, None, "atoms to generate, such as 0-21,30; all but water and ions by default", "train free-energy"),
    Option("temperature", number, 300.0, "K", _WORK),
    Option("timestep", number, None, "ps; 0.002 with constraints and 0.001 without, by default", "train run tune free-energy"),
    Option("friction", number, 1.0, "1/ps", "train run tune free-energy"),
    Option("platform", str, None, "OpenMM platform; CUDA, HIP, or the faster of CPU and Reference by default", _WORK),
    Option("seed", natural, 0, "of all random numbers; 0 chooses", _WORK),
    Option("output", Path, Path("openmm-flow"), "folder for the results", _WORK),
    Option("resume", bool, False, "continue what was interrupted in the output folder", "train run free-energy"),
    Option("overwrite", bool, False, "replace results in the output folder", _WORK),
    Option("flow", Path, None, "flow file; OUTPUT/flow.safetensors by default",
           "run tune evaluate free-energy info"),
    Option("torsion", str, [], "torsion NAME=i-j-k-l (atom numbers from 0), beside phi and psi", _WORK, many=True),
    Option("region", str, [], "region NAME=TORSION:LOW:HIGH (degrees): its population is estimated", _WORK, many=True),
    Option("data", Path, None, "training frames: .npz, or a trajectory at the temperature; made if not given", "train"),
    Option("highest-temperature", number, 1000.0, "K, of the tempering that makes training frames", "train free-energy"),
    Option("num-temperatures", count, 6, "of the tempering", "train free-energy"),
    Option("frames-per-temperature", count, 10_000, "kept from the tempering", "train free-energy"),
    Option("steps-per-frame", count, 250, "time steps between frames of the tempering", "train free-energy"),
    Option("testsystem", oneOf("DoubleWell", "GaussianMixture", "ManyWell"), None, "train on the energy of a system with a "
           "known answer, in place of a molecule: DoubleWell, GaussianMixture or ManyWell", "train"),
    Option("loss", oneOf("alpha", "reverse"), "alpha", "of --testsystem: alpha (FAB) or reverse (KL)", "train"),
    Option("stages", count, 8, "of annealing, for --loss alpha", "train"),
    Option("spread", number, 2.0, "nm, of the untrained flow of a --testsystem", "train"),
    Option("layers", count, 8, "couplings of the flow", "train"),
    Option("bins", count, 8, "bins of each spline", "train"),
    Option("hidden", count, [128, 128], "sizes of the hidden layers of each network", "train", many=True),
    Option("iterations", count, 2000, "of training on frames", "train"),
    Option("batch-size", count, 256, "of training on frames", "train"),
    Option("learning-rate", number, 1e-3, "of training on frames", "train"),
    Option("energy-weight", fraction, 0.0, "of the energy (reverse KL) beside the frames, from 0 to 1", "train"),
    Option("anneal-from", number, None, "K: train without frames, on the energy at this temperature, then cool", "train"),
    Option("anneal-temperatures", several, 8, "of the cooling, both ends included", "train"),
    Option("refine-iterations", natural, 4000, "of a second training, on the flow's own reweighted samples", "train"),
    Option("refine-batch-size", count, 512, "of the second training", "train"),
    Option("refine-learning-rate", number, 5e-4, "of the second training", "train"),
    Option("systems", str, [], "two System XML files, or with --sequence two solvents, such as vacuum implicit: their free energies' "
           "difference, by a map that is trained on frames of both", "free-energy", many=True),
    Option("map-iterations", count, 400, "of training of the map between --systems", "free-energy"),
    Option("map-layers", several, 4, "couplings of the map between --systems", "free-energy"),
    Option("map-hidden", count, [32, 32], "sizes of the hidden layers of each network of the map", "free-energy", many=True),
    Option("work-stages", count, 1, "of annealing in the works between --systems; 1 for none", "free-energy"),
    Option("absolute", bool, False, "the free energy of the System itself, -ln Z", "free-energy"),
    Option("samples", count, 100_000, "drawn from the flow", "train evaluate free-energy"),
    Option("steps", count, 1_000_000, "time steps to run", "run"),
    Option("jump-interval", natural, 100, "time steps between jumps; 0 for none", "run"),
    Option("trials-per-jump", count, 1, "proposals at each jump", "run tune"),
    Option("protocol", Path, None, "stages of annealed jumps, as `tune` writes them; bare jumps by default", "run"),
    Option("path", oneOf("density", "heating", "alchemical"), None, "of the stages: density (towards that of the flow; default where "
           "the flow has all atoms), heating (of these atoms) or alchemical (the solute leaves its solvent; default elsewhere)", "tune"),
    Option("heating-factor", number, 1.5, "of the temperature, at the last stage of heating", "tune"),
    Option("last-electrostatics", fraction, 0.0, "part of the solute's electrostatics with solvent that is kept at the last stage",
           "tune"),
    Option("last-sterics", fraction, 0.0, "part of its sterics that is kept; 1 leaves them alone", "tune"),
    Option("pilots", pilot, ["4x2", "8x2", "8x10"], "pilot runs, each STAGESxSTEPS with steps at each stage", "tune", many=True),
    Option("pilot-jumps", several, 100, "jumps of each pilot run", "tune"),
    Option("pilot-interval", count, 100, "time steps between them", "tune"),
    Option("stage-timestep", number, None, "ps, of the steps at stages; --timestep by default", "tune"),
    Option("stage-dynamics", oneOf("Langevin", "LangevinShadowWork", "Metropolised"), "Metropolised",
           "Langevin, LangevinShadowWork or Metropolised", "tune"),
    Option("report-interval", count, 1000, "time steps between frames and lines of the output", "run"),
    Option("checkpoint-interval", count, 50_000, "time steps between checkpoints", "run"),
    Option("format", oneOf("dcd", "xtc"), "dcd", "of the trajectory: dcd or xtc", "run"),
    Option("frames", Path, [], "target frames: trajectories or .npz of `train`; with --systems one file for each, or made",
           "evaluate free-energy", many=True),
    Option("discard", natural, 0, "frames to leave out at the start of --frames", "evaluate free-energy"),
    Option("frame-steps", count, None, "time steps between --frames, to compare the flow's cost with plain dynamics'", "evaluate"),
    Option("independent-steps", count, None, "time steps of plain dynamics for an independent sample; from --frame-steps and the "
           "autocorrelation of the frames by default", "evaluate"),
    Option("quiet", bool, False, "no progress bars", _ALL),
    Option("debug", bool, False, "show the traceback of an error", _ALL),
)


def makeParser(descriptions: dict[str, str]) -> argparse.ArgumentParser:
    """The parser of all commands. Flags that are not given are None: resolve() fills them in."""
    parser = argparse.ArgumentParser(prog="openmm-flow", description="Boltzmann generators for OpenMM.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, description in descriptions.items():
        sub = commands.add_parser(command, help=description, description=description, allow_abbrev=False)
        sub.add_argument("--config", type=Path, metavar="YAML", help="file of options; flags win")
        for option in optionsOf(command):
            flag, shown = f"--{option.name}", option.help.replace("%", "%%")
            if option.kind is bool:
                sub.add_argument(flag, action="store_true", default=None, help=shown)
                continue
            if option.default not in (None, []):
                default = " ".join(map(str, option.default)) if option.many else option.default
                shown += f" (default {default})"
            sub.add_argument(flag, metavar="X", help=shown, nargs="+" if option.many else None)
    return parser


def optionsOf(command: str) -> list[Option]:
    return [option for option in OPTIONS if command in option.commands.split()]


def suggest(name: str, known: Iterable[str]) -> str:
    """", did you mean ...?" or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Flags, then the YAML file's values, then the recipe's, then defaults."""
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [f"--{option.name}" for option in optionsOf(given.command)]
        raise UserError(f"unknown argument {unknown[0]}{suggest(unknown[0], flags)}")
    files = {given.config: readYaml(given.config)} if given.config else {}
    if recipe := getattr(given, "recipe", None) or next(iter(files.values()), {}).get("recipe"):
        file = findRecipe(str(recipe))
        files[file] = readYaml(file)
    for option in optionsOf(given.command):
        value, source = getattr(given, option.attribute), f"--{option.name}"
        for file, values in files.items():
            if value is None and option.name in values:
                value, source = values[option.name], f"{file}: {option.name}"
        setattr(given, option.attribute, option.default if value is None else convert(option, value, source))
    return given


def findRecipe(name: str) -> Path:
    if not (file := RECIPES / f"{name}.yaml").exists():
        raise UserError(f"there is no recipe {name}{suggest(name, [file.stem for file in RECIPES.glob('*.yaml')])}")
    return file


def readMapping(file: Path) -> dict[str, Any]:
    """What a YAML file holds, if it is lines of the form name: value."""
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {getattr(error, 'strerror', None) or 'not text'}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: must hold lines of the form name: value")
    return values


def readYaml(file: Path) -> dict[str, Any]:
    """The options of a file; unknown ones are an error. It may serve several commands: each takes its own."""
    values = readMapping(file)
    known = [option.name for option in OPTIONS]
    for name in values:
        if name not in known:
            raise UserError(f"{file}: unknown option {name}{suggest(str(name), known)}")
    return values


def convert(option: Option, value: Any, source: str) -> Any:
    """A value from a flag or a file, in its type."""
    if option.kind is bool:
        if not isinstance(value, bool):
            raise UserError(f"{source} is {value!r}, but must be true or false")
        return value
    if option.many:
        return [_convertOne(option, item, source) for item in (value if isinstance(value, list) else [value])]
    return _convertOne(option, value, source)


def _convertOne(option: Option, value: Any, source: str) -> Any:
    try:
        if isinstance(value, (bool, list, dict)):
            raise ValueError
        return option.kind(value)
    except (ValueError, TypeError):
        name = option.kind.__name__.lstrip("_")
        raise UserError(f"{source} is {value!r}, but must be {'' if ' or ' in name else 'a '}{name}") from None
