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

constexpr double kappa = 0.15;
constexpr int repetitions = 250, numSamples = 300;

/** phi^4 on 2 x 8 sites: the target at amount = 1 and the flow at 0, each with the lighter tails in another direction.
 */
LatticePhi4 between(double amount) {
    return LatticePhi4({{2, 8}, kappa, 0.8 + 0.1 * amount, 0.06 - 0.01 * amount});
}

/** Exact samples: free fields, accepted with exp(-quartic sum phi^4). */
Tensor sample(const LatticePhi4& lattice, std::int64_t count, Random& random) {
    LatticePhi4::Options options = lattice.getOptions();
    const double quartic = options.quartic;
    options.quartic = 0;
    const LatticePhi4 free(options);
    vector<Tensor> accepted;
    for (std::int64_t found = 0; found < count; found += accepted.back().size(0)) {
        const Tensor x = free.sampleFree(2000, random), u = quartic * x.pow(4).sum(1);
        accepted.push_back(x.index({random.uniform(2000, 1).squeeze(1).log() < -u}));
    }
    return at::cat(accepted).narrow(0, 0, count);
}

/** log w = u_flow - ln Z_flow - u_target by repetition. */
vector<vector<double>> logWeights(const Tensor& x) {
    const Tensor logW = between(0).createNativePotential()->evaluate(x).u + between(0).getLogZ() -
                        between(1).createNativePotential()->evaluate(x).u;
    vector<vector<double>> result;
    for (const Tensor& part : logW.split(numSamples))
        result.emplace_back(part.data_ptr<double>(), part.data_ptr<double>() + numSamples);
    return result;
}

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

// Truth by the transfer matrix: F, and the bounds by its derivative along the difference of the two actions.
TEST(LatticeEstimates, AreCalibratedOnPhi4) {
    const auto meanDifference = [](double amount) { // <u_target - u_flow>
        return -(between(amount + 1e-4).getLogZ() - between(amount - 1e-4).getLogZ()) / 2e-4;
    };
    const double f = -between(1).getLogZ(), flowF = -between(0).getLogZ();
    const double upper = flowF + meanDifference(0), lower = flowF + meanDifference(1);
    ASSERT_TRUE(lower < f - 0.02 && f + 0.02 < upper);
    Random random(91);
    const auto flow = logWeights(sample(between(0), repetitions * numSamples, random));
    const auto target = logWeights(sample(between(1), repetitions * numSamples, random));
    Scores fromFlow, fromTarget, above, below, covered, bennett;
    for (int i = 0; i < repetitions; i++) {
        const FlowFreeEnergy estimate = flowFreeEnergy(flow[i], target[i]);
        fromFlow.add(estimate.fromFlow, f);
        fromTarget.add(estimate.fromTarget, f);
        above.add(estimate.upperBound, upper);
        below.add(estimate.lowerBound, lower);
        covered.add(estimate.covered, 1);
        vector<double> works = flow[i];
        for (double& w : works)
            w = -w;
        const BarResult result = bar(works, target[i]);
        bennett.add({result.deltaF, result.standardError}, f);
    }
    fromFlow.check("from the flow");
    fromTarget.check("from the target");
    above.check("upper bound");
    below.check("lower bound");
    covered.check("covered");
    bennett.check("BAR");
}
