// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/Acceptance.h"
#include <algorithm>
#include <gtest/gtest.h>
#include <limits>

using namespace OpenMMFlow;

namespace {

constexpr AcceptanceTest bothTests[] = {AcceptanceTest::Metropolis, AcceptanceTest::Barker};

}

TEST(Acceptance, MetropolisIsTheSmallerOfOneAndTheRatio) {
    for (double logAlpha : {-30.0, -1.5, -1e-9, 0.0, 0.7, 40.0})
        EXPECT_NEAR(std::exp(logAcceptanceProbability(AcceptanceTest::Metropolis, logAlpha)),
                    std::min(1.0, std::exp(logAlpha)), 1e-15);
}

TEST(Acceptance, BarkerIsTheLogisticFunction) {
    for (double logAlpha : {-30.0, -1.5, -1e-9, 0.0, 0.7, 40.0})
        EXPECT_NEAR(std::exp(logAcceptanceProbability(AcceptanceTest::Barker, logAlpha)), 1 / (1 + std::exp(-logAlpha)),
                    1e-15);
}

TEST(Acceptance, SatisfiesDetailedBalance) {
    // p(logAlpha) / p(-logAlpha) = exp(logAlpha), also where the exponentials overflow.
    for (AcceptanceTest test : bothTests)
        for (double logAlpha : {1e-6, 0.3, 5.0, 300.0, 2000.0})
            EXPECT_NEAR(logAcceptanceProbability(test, logAlpha) - logAcceptanceProbability(test, -logAlpha), logAlpha,
                        1e-12 * std::max(1.0, logAlpha));
}

TEST(Acceptance, AcceptsBelowTheProbabilityAndRejectsAboveIt) {
    for (AcceptanceTest test : bothTests)
        for (double logAlpha : {-2.0, -0.1, 0.4}) {
            const double probability = std::exp(logAcceptanceProbability(test, logAlpha));
            EXPECT_TRUE(accept(test, logAlpha, probability * (1 - 1e-12)));
            if (probability < 1) {
                EXPECT_FALSE(accept(test, logAlpha, probability * (1 + 1e-12)));
            }
        }
}

TEST(Acceptance, RejectsWhatIsNotFinite) {
    for (AcceptanceTest test : bothTests)
        for (double logAlpha :
             {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)})
            for (double uniform : {1e-300, 0.5, 1 - 1e-16})
                EXPECT_FALSE(accept(test, logAlpha, uniform));
}

TEST(Acceptance, JumpRatioIsTheRatioOfWeightsOrOfJacobians) {
    // u 1 -> 4, log q -2 -> -7, log-det 0.5 -> 0.2.
    for (JumpKind kind : {JumpKind::Independence, JumpKind::PriorPreserving})
        EXPECT_DOUBLE_EQ(jumpLogAlpha(kind, 1, 4, -2, -7, 0.5, 0.2), (-4 + 7) - (-1 + 2));
    EXPECT_DOUBLE_EQ(jumpLogAlpha(JumpKind::RandomWalk, 1, 4, -2, -7, 0.5, 0.2), 1 - 4 + 0.2 - 0.5);
}
