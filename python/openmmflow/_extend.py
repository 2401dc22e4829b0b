# SPDX-License-Identifier: MIT
"""What makes the wrapped C++ classes behave like Python's: settings by keyword, repr, unpacking, copies and pickles; and the
places where OpenMM's own methods return a Force or an Integrator of ours, which its wrappers don't know."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import openmm as mm

from . import openmmflow as api


def extend() -> None:
    """Extend the classes; called once, when the package is imported."""
    for cls in vars(api).values():
        if not isinstance(cls, type) or cls.__module__ != api.__name__:
            continue
        if vars(cls).get("__repr__") is api._swig_repr:
            del cls.__repr__  # it would hide that of the base class
        _documentSetters(cls)
        if _fields(cls):
            cls.__repr__ = _reprOfFields
            for field in _fields(cls):
                # type's own, as SWIG's metaclass refuses to replace a property
                type.__setattr__(cls, field, _keepingOwner(getattr(cls, field)))
            if cls.__name__.endswith("Options"):
                _takeSettings(cls)
    api.Transform.__repr__ = lambda self: f"{self.getTypeName()}({_sizes(self)})"
    api.Sequence.__repr__ = lambda self: f"Sequence({list(self.getTransforms())})"
    api.Prior.__repr__ = lambda self: f"{type(self).__name__}(size={self.getSize()})"
    api.Flow.__repr__ = _reprOfFlow
    api.ContextPotential.__repr__ = _reprOfPotential
    api.FlowForce.__repr__ = lambda self: f"FlowForce({self.getFlow()}, {self.getTemperature()})"
    api.AnnealedProtocol.__repr__ = _reprOfProtocol
    api.FlowLangevinIntegrator.__repr__ = _reprOfIntegrator
    _takeFiles(api.FlowForce)
    _takeFiles(api.FlowLangevinIntegrator)
    api.TransformResult.__iter__ = lambda self: iter((self.value, self.logDet))
    api.LogQGradient.__iter__ = lambda self: iter((self.logQ, self.gradient))
    api.DensityGradient.__iter__ = lambda self: iter((self.logDensity, self.gradient))
    api.Flow.__reduce__ = lambda self: (api.Flow.deserialize, (self.serialize(),))
    api.Flow.__copy__ = lambda self: self.clone()
    api.Flow.__deepcopy__ = lambda self, memo: self.clone()
    _recognise(api.FlowForce, mm.Force, (mm.System, "getForce"), (mm.CustomCVForce, "getCollectiveVariable"),
               (mm.XmlSerializer, "_cloneForce"), (mm.XmlSerializer, "_deserializeForce"))
    _recognise(api.FlowLangevinIntegrator, mm.LangevinMiddleIntegrator, (mm.CompoundIntegrator, "getIntegrator"),
               (mm.XmlSerializer, "_cloneIntegrator"), (mm.XmlSerializer, "_deserializeIntegrator"))


def _takeFiles(cls: type) -> None:
    """The name of a flow's file in place of the Flow."""
    construct = cls.__init__

    def load(value: Any) -> Any:
        return api.Flow.load(str(value)) if isinstance(value, (str, Path)) else value

    @functools.wraps(construct)
    def __init__(self: Any, *arguments: Any, **named: Any) -> None:
        construct(self, *map(load, arguments), **{name: load(value) for name, value in named.items()})

    cls.__init__ = __init__


def _documentSetters(cls: type) -> None:
    """Headers say what a setting is at its getter."""
    for name, method in vars(cls).items():
        getter = vars(cls).get("get" + name[3:])
        if name.startswith("set") and not method.__doc__ and getter is not None and getter.__doc__:
            method.__doc__ = f"Set: {getter.__doc__}"


def _fields(cls: type) -> list[str]:
    return [name for name, value in vars(cls).items() if isinstance(value, property) and name != "thisown"]


def _reprOfFields(self: Any) -> str:
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in _fields(type(self)))
    return f"{type(self).__name__}({values})"


def _takeSettings(cls: type) -> None:
    """TrainerOptions(iterations=100) sets a field; an unknown one is an AttributeError, as it is in an assignment."""
    construct = cls.__init__

    def __init__(self: Any, **settings: Any) -> None:
        construct(self)
        for name, value in settings.items():
            setattr(self, name, value)

    __init__.__doc__ = f"Any of {', '.join(_fields(cls))}, by keyword."
    cls.__init__ = __init__


def _keepingOwner(field: property) -> property:
    """A struct within a struct refers to it, and has to keep it alive."""
    def get(self: Any) -> Any:
        value = field.fget(self)
        if hasattr(value, "this"):
            object.__setattr__(value, "_owner", self)
        return value

    return property(get, field.fset, doc=field.__doc__)


def _sizes(transform: Any) -> str:
    z, x = transform.getInputSize(), transform.getOutputSize()
    return f"size={z}" if z == x else f"{z} -> {x}"


def _reprOfFlow(self: Any) -> str:
    atoms, temperature = len(self.getAtoms()), self.getTemperature()
    numParameters = sum(tensor.numel() for tensor in self.getParameters().values())
    return (f"Flow({self.getLatentSize()} -> {self.getSize()}"
            + (f", {atoms} atoms" if atoms else "") + (f", {temperature:g} K" if temperature else "")
            + f", {numParameters} parameters)")


def _reprOfPotential(self: Any) -> str:
    return (f"ContextPotential({len(self.getAtoms())} atoms, {self.getTemperature()}, "
            f"{self.getNumContexts()} Contexts on {self.getPlatformName()})")


def _reprOfIntegrator(self: Any) -> str:
    return (f"FlowLangevinIntegrator({self.getTemperature()}, {self.getFriction()}, {self.getStepSize()}, "
            f"{self.getFlow()}, {self.getJumpKind().name}, jumpInterval={self.getJumpInterval()}, "
            f"trialsPerJump={self.getTrialsPerJump()})")


def _reprOfProtocol(self: Any) -> str:
    names = [self.getParameterName(i) for i in range(self.getNumParameters())]
    return (f"AnnealedProtocol({self.getNumStages()} stages of {self.getStepsPerStage()} steps, {', '.join(names)}, "
            f"{self.getStageDynamics().name}, {self.getMiddleJump().name})")


def _recognise(cls: type, base: type, *places: tuple[type, str]) -> None:
    """Make methods that return an object of our class as its base return it as what it is.

    OpenMM's wrappers go through a fixed list of classes to find that of an object, and give it a base class of the last
    resort if it is not in the list. We look again at those objects, and change nothing for any other.
    """
    for owner, name in places:
        found = vars(owner)[name]
        method = found.__func__ if isinstance(found, staticmethod) else found
        if hasattr(method, "__wrapped__"):
            continue  # the module was reloaded

        @functools.wraps(method)
        def recognised(*args: Any, _method: Any = method) -> Any:
            result = _method(*args)
            if type(result) is not base or not cls.isinstance(result):
                return result
            found = cls.cast(result)
            if result.thisown:
                result.this.disown()
                found.this.acquire()
            return found

        setattr(owner, name, staticmethod(recognised) if isinstance(found, staticmethod) else recognised)
