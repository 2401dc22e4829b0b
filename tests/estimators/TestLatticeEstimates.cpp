// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/LatticePhi4.h"
#include "openmmflow/estimators/FlowFreeEnergy.h"
#include "openmmflow/estimators/FreeEnergy.h"
#include <ATen/ATen.h>
#include <cmath>
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;
using std::vector;

namespace {

constexpr double kappa = 0.15, quadratic = 0.9, quartic = 0.05;

LatticePhi4 interacting(double lambda = quartic) {
    return LatticePhi4({{2, 8}, kappa, quadratic, lambda});
}

/**
 * A flow whose density is the free field's, and phi^4 as its target: log w = ln Z_free - quartic sum phi^4 <= ln
 * Z_free, so that rejection samples the target exactly.
 */
struct FreeField {
    LatticePhi4 field{{{2, 8}, kappa, quadratic, 0}};
    double logZ = field.getLogZ();
    [[nodiscard]] vector<double> fromFlow(int count, Random& random) const {
        const Tensor logW = logZ - quartic * field.sampleFree(count, random).pow(4).sum(1);
        return {logW.data_ptr<double>(), logW.data_ptr<double>() + count};
    }
    [[nodiscard]] vector<double> fromTarget(int count, Random& random) const {
        vector<double> accepted;
        while (static_cast<int>(accepted.size()) < count)
            for (const double logW : fromFlow(count, random))
                if (std::log(random.uniform()) < logW - logZ && static_cast<int>(accepted.size()) < count)
                    accepted.push_back(logW);
        return accepted;
    }
};

struct Scores {
    double sum = 0, squares = 0;
    int count = 0;
    void add(const WeightStatistic& estimate, double truth) {
        const double z = (estimate.value - truth) / estimate.standardError;
        sum += z;
        squares += z * z;
        count++;
    }
    void check(const char* name) const {
        const double mean = sum / count;
        EXPECT_LT(std::abs(mean), 0.15) << name;
        EXPECT_NEAR(std::sqrt(squares / count - mean * mean), 1, 0.15) << name;
    }
};

} // namespace

// Truth: F by the transfer matrix; bounds by the free field's variance and by the derivative of F.
TEST(LatticeEstimates, AreCalibratedOnPhi4) {
    const FreeField flow;
    const double f = -interacting().getLogZ();
    const Tensor unit = at::eye(16, at::kDouble);
    const Tensor covariance =
        at::linalg_inv(flow.field.createNativePotential()->evaluate(unit, Gradient::Compute).gradient);
    const double upper = quartic * 3 * covariance.diagonal().square().sum().item<double>() - flow.logZ;
    const double slope = (interacting(quartic + 1e-4).getLogZ() - interacting(quartic - 1e-4).getLogZ()) / 2e-4;
    const double lower = -quartic * slope - flow.logZ;
    ASSERT_TRUE(lower < f - 0.1 && f + 0.1 < upper);
    Random random(91);
    Scores fromFlow, fromTarget, above, below, covered, bennett;
    for (int i = 0; i < 400; i++) {
        const vector<double> x = flow.fromFlow(1000, random), y = flow.fromTarget(1000, random);
        const FlowFreeEnergy estimate = flowFreeEnergy(x, y);
        fromFlow.add(estimate.fromFlow, f);
        fromTarget.add(estimate.fromTarget, f);
        above.add(estimate.upperBound, upper);
        below.add(estimate.lowerBound, lower);
        covered.add(estimate.covered, 1);
        vector<double> works = x;
        for (double& w : works)
            w = -w;
        const BarResult result = bar(works, y);
        bennett.add({result.deltaF, result.standardError}, f);
    }
    fromFlow.check("from the flow");
    fromTarget.check("from the target");
    above.check("upper bound");
    below.check("lower bound");
    covered.check("covered");
    bennett.check("BAR");
}
