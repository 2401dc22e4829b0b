# SPDX-License-Identifier: MIT
"""Flows of other PyTorch libraries as transforms and flows of this one.

What is adapted can be sampled, trained (by torch.optim or by Trainer) and used in FlowLangevinIntegrator and FlowForce. It
can't be saved with Flow.save(), copied or pickled, for that would need code from a file: save the module by its own means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from . import openmmflow as api

Map = Any  # forward(z) -> (x, logDet), inverse(x) -> (z, logDet)


class TorchFlowAdapter(torch.nn.Module):
    """A map whose arguments have the dtype and device of its parameters, and whose results are float64 on the CPU.

    Its parameters are those of the map. Gradients pass through.
    """

    def __init__(self, map: Map):
        """
        Parameters
        ----------
        map : a module or object with forward(z) -> (x, logDet) and inverse(x) -> (z, logDet), z and x [batch, size]
            and logDet [batch], each of the map just applied
        """
        super().__init__()
        self.map = map

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._apply_map(self.map.forward, z)

    def inverse(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._apply_map(self.map.inverse, x)

    def _apply_map(self, function: Any, argument: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        like = next(self.parameters(), argument)
        value, logDet = function(argument.to(like))
        return value.to("cpu", torch.float64), logDet.to("cpu", torch.float64)

    def transform(self, size: int, outputSize: int = 0, constantLogDet: bool = False) -> Any:
        """The PythonTransform of this map.

        Parameters
        ----------
        size : columns of z
        outputSize : columns of x, if they are not as many
        constantLogDet : whether logDet is the same number for all arguments
        """
        return api.PythonTransform(self, size, outputSize, constantLogDet)


class _Functions(torch.nn.Module):
    """A map of two functions of a module."""

    def __init__(self, module: torch.nn.Module, forward: Any, inverse: Any):
        super().__init__()
        self.module, self.forward, self.inverse = module, forward, inverse


def _makeFlow(module: torch.nn.Module, forward: Any, inverse: Any, size: int, after: Sequence[Any],
              atoms: Sequence[int], temperature: float) -> Any:
    transforms = [TorchFlowAdapter(_Functions(module, forward, inverse)).transform(size), *after]
    flow = api.Flow(api.GaussianPrior(size), api.Sequence(transforms), list(atoms))
    if temperature:
        flow.setTemperature(temperature)
    return flow


def fromZuko(flow: Any, after: Sequence[Any] = (), atoms: Sequence[int] = (), temperature: float = 0.0) -> Any:
    """A Flow from zuko.flows: NSF, MAF, RealNVP, ... with its standard normal base and without a context.

    Parameters
    ----------
    flow : zuko's Flow (zuko's transforms go from x to z, ours from z to x)
    after : transforms that come after it, such as Scaling and InternalCoordinates
    atoms, temperature : see Flow
    """
    def forward(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return flow().transform.inv.call_and_ladj(z)

    def inverse(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return flow().transform.call_and_ladj(x)

    base = flow().base
    _requireStandardNormal("fromZuko", base.log_prob, base.event_shape[0])
    return _makeFlow(flow, forward, inverse, base.event_shape[0], after, atoms, temperature)


def fromNflows(flow: Any, after: Sequence[Any] = (), atoms: Sequence[int] = (), temperature: float = 0.0) -> Any:
    """A Flow from an nflows.flows.Flow with a StandardNormal base (nflows' transforms go from x to z, ours from z to x).

    The parameters are those of fromZuko().
    """
    size = flow._distribution._shape[0]
    _requireStandardNormal("fromNflows", flow._distribution.log_prob, size)
    return _makeFlow(flow, flow._transform.inverse, flow._transform.forward, size, after, atoms, temperature)


def fromNormflows(flow: Any, after: Sequence[Any] = (), atoms: Sequence[int] = (), temperature: float = 0.0) -> Any:
    """A Flow from a normflows.NormalizingFlow with a DiagGaussian base, standard normal.

    The parameters are those of fromZuko().
    """
    size = int(flow.q0.d) if hasattr(flow.q0, "d") else int(torch.tensor(flow.q0.shape).prod())
    _requireStandardNormal("fromNormflows", flow.q0.log_prob, size)
    return _makeFlow(flow, flow.forward_and_log_det, flow.inverse_and_log_det, size, after, atoms, temperature)


def _requireStandardNormal(function: str, logDensity: Any, size: int) -> None:
    """The base's parameters would not be this library's prior's."""
    z = torch.linspace(-2, 2, size)[None]
    expected = api.GaussianPrior(size).logDensity(z)
    with torch.no_grad():
        difference = float((logDensity(z) - expected).abs().max())
    if not difference < 1e-4 * size:
        raise ValueError(f"{function}: the base of the flow must be the standard normal distribution; its log density differs "
                         f"by {difference:.3g}. Adapt its transform with TorchFlowAdapter and give Flow its prior")
