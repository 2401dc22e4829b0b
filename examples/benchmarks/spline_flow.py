# SPDX-License-Identifier: MIT
"""A spline coupling flow of OpenMM-Flow against the same flow of zuko, nflows and normflows, in one run and one thread.

60 variables, 8 couplings that change one half each, rational-quadratic splines of 8 bins, networks of two hidden layers of 128.
log q of given x, its gradient by x (the force of a density), sampling with log q, and a training step (loss, gradients, Adam) by
maximum likelihood. Peers that are not installed are left out. They compute in float32, OpenMM-Flow with networks in float32 and
splines and log-dets in float64.

    OMP_NUM_THREADS=1 python spline_flow.py [--batches 1 16 256 1024]
"""
import importlib.util

import openmmflow as of
import timing
import torch

SIZE, LAYERS, BINS, HIDDEN, BOUND = 60, 8, 8, [128, 128], 5.0


def makeOurFlow(atoms=()):
    transforms = []
    for layer in range(LAYERS):
        options = of.SplineCouplingOptions(bins=BINS, bound=BOUND)
        options.conditioner.hiddenSizes, options.conditioner.seed = HIDDEN, layer + 1
        active = list(range(layer % 2, SIZE, 2))
        transforms.append(of.SplineCoupling(SIZE, active, [], options))
    return of.Flow(of.GaussianPrior(SIZE), of.Sequence(transforms), list(atoms))


def makeOurs():
    flow = makeOurFlow()
    parameters = list(flow.getParameters().values())
    random = of.Random(1)

    def sample(count):
        drawn = flow.sample(count, random)
        return drawn.x, drawn.logQ

    options = of.TrainerOptions(iterations=10**9, learningRate=1e-4, warmup=0, numThreads=1)

    def makeStep(x):
        trainer = of.Trainer(flow, options)
        loss = of.MaximumLikelihoodLoss(flow, of.MaximumLikelihoodLossOptions(batchSize=len(x), validationFraction=0.0))
        loss.addData(x)
        trainer.addLoss(loss)
        return lambda: trainer.train(1)

    return flow.logQ, flow.logQWithGradient, sample, makeStep, parameters


def withAutograd(logProb, sample, parameters):
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def makeStep(x):
        def step():
            optimizer.zero_grad()
            (-logProb(x).mean()).backward()
            optimizer.step()
        return step

    def gradient(x):
        x = x.requires_grad_()
        return torch.autograd.grad(logProb(x).sum(), x)[0]

    return logProb, gradient, sample, makeStep, parameters


def makeZuko():
    import zuko
    mask = torch.arange(SIZE) % 2 == 0
    transforms = [zuko.flows.GeneralCouplingTransform(
        features=SIZE, mask=mask if layer % 2 == 0 else ~mask, hidden_features=HIDDEN, activation=torch.nn.SiLU,
        univariate=zuko.transforms.MonotonicRQSTransform, shapes=[(BINS,), (BINS,), (BINS - 1,)]) for layer in range(LAYERS)]
    base = zuko.flows.UnconditionalDistribution(zuko.distributions.DiagNormal, torch.zeros(SIZE), torch.ones(SIZE), buffer=True)
    flow = zuko.flows.Flow(transforms, base)
    return withAutograd(lambda x: flow().log_prob(x), lambda count: flow().rsample_and_log_prob((count,)),
                         list(flow.parameters()))


def makeNflows():
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import MLP
    from nflows.transforms import CompositeTransform, PiecewiseRationalQuadraticCouplingTransform
    transforms = [PiecewiseRationalQuadraticCouplingTransform(
        torch.arange(SIZE) % 2 if layer % 2 == 0 else 1 - torch.arange(SIZE) % 2,
        lambda inputs, outputs: MLPWithContext(MLP([inputs], [outputs], HIDDEN, activation=torch.nn.functional.silu)),
        num_bins=BINS, tails="linear", tail_bound=BOUND) for layer in range(LAYERS)]
    flow = Flow(CompositeTransform(transforms), StandardNormal([SIZE]))
    return withAutograd(flow.log_prob, flow.sample_and_log_prob, list(flow.parameters()))


class MLPWithContext(torch.nn.Module):
    """nflows calls its networks with a context."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, context=None):
        return self.network(x)


def makeNormflows():
    import normflows
    layers = [normflows.flows.CoupledRationalQuadraticSpline(
        SIZE, 1, HIDDEN[0], num_bins=BINS, tail_bound=BOUND, activation=torch.nn.SiLU,
        reverse_mask=bool(layer % 2)) for layer in range(LAYERS)]
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(SIZE, trainable=False), layers)
    return withAutograd(flow.log_prob, flow.sample, list(flow.parameters()))


PEERS = {"zuko": makeZuko, "nflows": makeNflows, "normflows": makeNormflows}
# Of each peer's time over ours.
REQUIRED = {("log q", 1): ">= 12", ("sample", 1): ">= 12", ("log q", 1024): ">= 3", ("sample", 1024): ">= 3",
            ("gradient of log q", 1): ">= 20", ("training step", 256): ">= 3", ("training step", 1024): ">= 3"}


def addOptions(parser):
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 256, 1024])
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))


def measure(options):
    names = [name for name in options.peers if importlib.util.find_spec(name) is not None]
    libraries = {"OpenMM-Flow": makeOurs()} | {name: PEERS[name]() for name in names}
    for name, (*_, parameters) in libraries.items():
        print(f"{name}: {sum(p.numel() for p in parameters)} parameters")
    for batch in options.batches:
        for label, actions in makeWork(libraries, batch).items():
            times = timing.timeInTurns(actions, options.seconds, rounds=3 if options.short else 5)
            for peer in names:
                yield timing.makeRow(f"{label}, batch {batch}", times, (peer, "OpenMM-Flow"),
                                     required=REQUIRED.get((label, batch)))


def makeWork(libraries, batch):
    """{what: {library: action}}"""
    x64 = torch.randn(batch, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    work = {"log q": {}, "gradient of log q": {}, "sample": {}, "training step": {}}
    for name, (logQ, gradient, sample, makeStep, _) in libraries.items():
        x = x64 if name == "OpenMM-Flow" else x64.float()
        work["log q"][name] = lambda logQ=logQ, x=x: inference(logQ, x)
        work["gradient of log q"][name] = lambda gradient=gradient, x=x.clone(): gradient(x)
        work["sample"][name] = lambda sample=sample: inference(sample, batch)
        work["training step"][name] = makeStep(x)
    return work


@torch.no_grad()
def inference(function, argument):
    function(argument)


if __name__ == "__main__":
    timing.run("spline_flow", __doc__, measure, addOptions)
