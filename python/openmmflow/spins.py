# SPDX-License-Identifier: MIT
"""Discrete spins by an autoregressive network: exact densities, independent samples, and ln Z of the Ising model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from . import openmmflow as api


class AutoregressiveSpins(torch.nn.Module):
    """A density of the spins s = +-1 of an Ising model on a torus, one site after the other in row-major order:

        log q(s) = sum_i ln sigmoid(2 h_i s_i),   h_i = K sum of the neighbours before i + w_i . tanh(W_i v_i)

    v_i holds what spins before i can tell about those from i on: the latest `columns` of them, which join what follows,
    and the first row, which the last one joins. The exact conditional densities are of that form, with another function of
    v_i. Without biases h is odd in s, so that q(-s) = q(s), as the model has it: neither phase can be dropped. Untrained, w
    is 0.

    Blind, as every flow trained on its own samples: states other than the two phases that it has lost do not show in
    weights of its samples.

    Sources: Wu, Wang and Zhang, PRL 122, 080602 (2019), autoregressive networks for spins; Bialas, Korcyl and Stebel,
    Comput. Phys. Commun. 281, 108502 (2022), networks of the boundary alone.
    """

    def __init__(self, rows: int, columns: int, coupling: float, hiddenSize: int = 32, seed: int = 0):
        """
        Parameters
        ----------
        rows, columns : each at least 3
        coupling : K = J/kT
        hiddenSize : rows of each W_i
        seed : of the weights; 0 chooses
        """
        super().__init__()
        if min(rows, columns) < 3:
            raise ValueError(f"AutoregressiveSpins: the lattice is {rows} x {columns}, but must be at least 3 x 3")
        self.rows, self.columns, self.coupling = rows, columns, coupling
        size, site = rows * columns, np.arange(rows * columns)[:, None]
        latest, firstRow = site - 1 - np.arange(columns), np.arange(columns) + 0 * site
        seen = np.hstack([np.where(latest >= 0, latest, size), np.where(firstRow < site - columns, firstRow, size)])
        row, column = site // columns, site % columns
        around = np.hstack([(row - 1) % rows * columns + column, (row + 1) % rows * columns + column,
                            row * columns + (column - 1) % columns, row * columns + (column + 1) % columns])
        self.register_buffer("seen", torch.from_numpy(seen), persistent=False)  # `size` stands for a spin of 0
        self.register_buffer("before", torch.from_numpy(np.where(around < site, around, size)), persistent=False)
        noise = api.Random(seed).normal(size, 2 * columns * hiddenSize).float() / np.sqrt(2 * columns)
        self.first = torch.nn.Parameter(noise.reshape(size, 2 * columns, hiddenSize))
        self.second = torch.nn.Parameter(torch.zeros(size, hiddenSize, 1))

    def _fields(self, padded: torch.Tensor, sites: slice) -> torch.Tensor:
        """h of some sites, [sites, batch]. padded: spins [batch, size + 1], the last 0."""
        seen = padded[:, self.seen[sites]].transpose(0, 1)
        learned = torch.bmm(torch.tanh(torch.bmm(seen, self.first[sites])), self.second[sites]).squeeze(2)
        return learned + self.coupling * padded[:, self.before[sites]].sum(2).t()

    def logQ(self, spins: torch.Tensor) -> torch.Tensor:
        """log q, differentiable in the parameters, float64 [batch]. spins: [batch, sites] of +-1."""
        padded = torch.nn.functional.pad(spins.to(self.first.dtype), (0, 1))
        h = self._fields(padded, slice(None)).t()
        return torch.nn.functional.logsigmoid(2 * h.double() * spins.double()).sum(1)

    @torch.no_grad()
    def sample(self, count: int, random: api.Random) -> torch.Tensor:
        """Independent samples of q, [count, sites]."""
        size = self.rows * self.columns
        padded = torch.zeros(count, size + 1, dtype=self.first.dtype)
        noise = random.uniform(count, size)
        for i in range(size):
            up = torch.sigmoid(2 * self._fields(padded, slice(i, i + 1))[0].double())
            padded[:, i] = torch.where(noise[:, i] < up, 1.0, -1.0)
        return padded[:, :size].clone()

    def energy(self, spins: torch.Tensor) -> torch.Tensor:
        """u = -K sum over bonds of s s', float64 [batch]."""
        s = spins.double().reshape(-1, self.rows, self.columns)
        return -self.coupling * (s * (torch.roll(s, 1, 1) + torch.roll(s, 1, 2))).sum((1, 2))

    def logWeights(self, count: int, random: api.Random, batchSize: int = 1000) -> torch.Tensor:
        """log w = -u - log q of new samples, [count]: for logMeanWeight(), effectiveSampleSize() and independenceChain()."""
        with torch.no_grad():
            parts = [self.sample(min(batchSize, count - i), random) for i in range(0, count, batchSize)]
            return torch.cat([-self.energy(s) - self.logQ(s) for s in parts])


@dataclass
class SpinTraining:
    """What trainSpins() returns: at each iteration the mean of u + log q, an upper bound of -ln Z, and its deviation, which
    goes to 0 as q becomes exact."""

    bounds: np.ndarray
    deviations: np.ndarray


def trainSpins(network: AutoregressiveSpins, iterations: int, *, batchSize: int = 250, learningRate: float = 3e-3,
               seed: int = 0) -> SpinTraining:
    """Reverse KL divergence by the score function: with R = u + log q of samples of q, its gradient is

        E[(R - mean R) grad log q]

    as E[grad log q] = 0. The learning rate falls to 0 along a cosine.

    Parameters
    ----------
    batchSize : samples at each iteration
    seed : of the samples; 0 chooses
    """
    random = api.Random(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=learningRate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    bounds, deviations = [], []
    for _ in range(iterations):
        spins = network.sample(batchSize, random)
        logQ = network.logQ(spins)
        excess = network.energy(spins) + logQ.detach()
        bounds.append(float(excess.mean()))
        deviations.append(float(excess.std()))
        optimizer.zero_grad()
        ((excess - excess.mean()) * logQ).mean().backward()
        optimizer.step()
        schedule.step()
    return SpinTraining(np.array(bounds), np.array(deviations))
