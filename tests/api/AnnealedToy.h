#ifndef OPENMMFLOW_TESTS_ANNEALEDTOY_H_
#define OPENMMFLOW_TESTS_ANNEALEDTOY_H_
// SPDX-License-Identifier: MIT
// Annealed jumps of makeAnnealedWell()'s particle once more, in plain numbers and without OpenMM: what the integrator
// is compared with, and, done wrong on purpose, what its tests must be able to detect.

#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/latent/Random.h"
#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

namespace OpenMMFlow {

using Point = std::array<double, 3>;

/** What is done wrong. */
enum class Mistake {
    None,
    AsymmetricProtocol,    // back in one leap
    EndpointEnergies,      // W = u(end) - u(start)
    KineticEnergyInWork,   // of the ends
    ShadowWorkIgnored,     // by unadjusted dynamics
    VelocitiesNotReversed, // where a step is rejected
    WorkOfWrongSign,
    MiddleInWork // the energy change of a decided jump counts again
};

struct AnnealedToy {
    double tilt = 0.3, stepSize = 0.1, friction = 1.0;
    int numStages = 8, stepsPerStage = 3;
    StageDynamics dynamics = StageDynamics::LangevinShadowWork;
    MiddleJump middleJump = MiddleJump::Decided;
    Mistake mistake = Mistake::None;
    Random random{1};
    std::int64_t jumps = 0, accepted = 0, middleAccepted = 0, steps = 0, stepsAccepted = 0;

    // The flow of makeWellFlow(): a normal density.
    static constexpr Point mean = {0.2, 0.1, -0.1}, width = {2.5, 1.2, 1.2};

    double energy(const Point& x, double lambda) const {
        const double s = x[0] * x[0], r = x[1] * x[1] + x[2] * x[2];
        return lambda * (s * s / 4 - 3 * s + tilt * x[0] + r / 2) +
               (1 - lambda) * ((x[0] - 0.4) * (x[0] - 0.4) / 8 + r / 3);
    }
    Point force(const Point& x, double lambda) const {
        const double other = lambda + (1 - lambda) * 2 / 3;
        return {-lambda * (x[0] * x[0] * x[0] - 6 * x[0] + tilt) - (1 - lambda) * (x[0] - 0.4) / 4, -other * x[1],
                -other * x[2]};
    }
    static double kineticEnergy(const Point& v) { return (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) / 2; }
    static double logQ(const Point& x) {
        double sum = 0;
        for (int i = 0; i < 3; i++)
            sum -= std::pow((x[i] - mean[i]) / width[i], 2) / 2 + std::log(width[i]);
        return sum;
    }
    Point draw() { return {random.normal(), random.normal(), random.normal()}; }

    void noise(Point& v) {
        const double keep = std::exp(-friction * stepSize / 2), spread = std::sqrt(1 - keep * keep);
        for (double& c : v)
            c = keep * c + spread * random.normal();
    }
    void verlet(Point& x, Point& v, double lambda) const {
        for (const bool last : {false, true}) {
            const Point f = force(x, lambda);
            for (int i = 0; i < 3; i++) {
                v[i] += stepSize / 2 * f[i];
                x[i] += last ? 0 : stepSize * v[i];
            }
        }
    }
    // One step; returns the shadow work.
    double step(Point& x, Point& v, double lambda) {
        noise(v);
        const Point oldX = x, oldV = v;
        verlet(x, v, lambda);
        const double change = energy(x, lambda) + kineticEnergy(v) - energy(oldX, lambda) - kineticEnergy(oldV);
        steps++;
        stepsAccepted++;
        if (dynamics == StageDynamics::Metropolised && !(std::log(random.uniform()) < -change)) {
            x = oldX;
            stepsAccepted--;
            for (int i = 0; i < 3; i++)
                v[i] = mistake == Mistake::VelocitiesNotReversed ? oldV[i] : -oldV[i];
        }
        noise(v);
        return dynamics == StageDynamics::LangevinShadowWork && mistake != Mistake::ShadowWorkIgnored ? change : 0;
    }
    double propagate(Point& x, Point& v, double lambda) {
        double shadow = 0;
        for (int i = 0; i < stepsPerStage; i++)
            shadow += step(x, v, lambda);
        return shadow;
    }
    double lambdaOf(int stage) const { return 1 - static_cast<double>(stage) / numStages; }

    std::optional<double> middle(Point& x) {
        Point trial = draw();
        for (int i = 0; i < 3; i++)
            trial[i] = mean[i] + width[i] * trial[i];
        const double logAlpha = -energy(trial, 0) - logQ(trial) + energy(x, 0) + logQ(x);
        if (middleJump == MiddleJump::Decided && std::log(random.uniform()) >= logAlpha)
            return std::nullopt;
        const double counted = mistake == Mistake::MiddleInWork ? energy(x, 0) - energy(trial, 0) : 0;
        x = trial;
        middleAccepted++;
        return middleJump == MiddleJump::Decided ? counted : logAlpha;
    }
    // One annealed jump.
    void jump(Point& start) {
        Point x = start, v = draw();
        const double kinetic = kineticEnergy(v);
        double work = 0;
        jumps++;
        for (int k = 1; k <= numStages; k++) {
            work += energy(x, lambdaOf(k)) - energy(x, lambdaOf(k - 1));
            work += propagate(x, v, lambdaOf(k));
        }
        const auto gain = middle(x);
        if (!gain.has_value())
            return;
        const int back = mistake == Mistake::AsymmetricProtocol ? numStages : 1;
        for (int k = numStages; k > 0; k -= back) {
            work += propagate(x, v, lambdaOf(k));
            work += energy(x, lambdaOf(k - back)) - energy(x, lambdaOf(k));
        }
        if (mistake == Mistake::EndpointEnergies)
            work = energy(x, 1) - energy(start, 1);
        if (mistake == Mistake::KineticEnergyInWork)
            work += kineticEnergy(v) - kinetic;
        if (mistake == Mistake::WorkOfWrongSign)
            work = -work;
        if (std::log(random.uniform()) < *gain - work) {
            start = x;
            accepted++;
        }
    }
};

/** Independent draws of the double well, from a table of the distribution of x. */
class WellSampler {
public:
    explicit WellSampler(double tilt) {
        for (int i = 0; i < 20000; i++) {
            grid.push_back(-6 + 12 * (i + 0.5) / 20000);
            const double s = grid.back() * grid.back();
            cumulative.push_back(sum += std::exp(-(s * s / 4 - 3 * s + tilt * grid.back())));
        }
    }
    Point draw(Random& random) const {
        const auto found = std::lower_bound(cumulative.begin(), cumulative.end(), random.uniform() * sum);
        return {grid[found - cumulative.begin()], random.normal(), random.normal()};
    }

private:
    std::vector<double> grid, cumulative;
    double sum = 0;
};

/** The largest deviation from invariance, in standard errors: means of f(after) - f(before) over exact starts. */
template <class Configuration>
double largestDeviation(const std::vector<std::function<double(const Configuration&)>>& functions, int samples,
                        const std::function<Configuration()>& draw, const std::function<void(Configuration&)>& move) {
    std::vector<double> sums(functions.size()), squares(functions.size());
    for (int i = 0; i < samples; i++) {
        const Configuration before = draw();
        Configuration after = before;
        move(after);
        for (std::size_t f = 0; f < functions.size(); f++) {
            const double difference = functions[f](after) - functions[f](before);
            sums[f] += difference;
            squares[f] += difference * difference;
        }
    }
    double largest = 0;
    for (std::size_t f = 0; f < functions.size(); f++)
        largest = std::max(largest, std::abs(sums[f]) / std::sqrt(squares[f]));
    return largest;
}

/** The same for the double well, by functions that between them see wells, widths and energies. */
inline double deviation(double tilt, int samples, std::uint64_t seed, const std::function<void(Point&)>& move) {
    const std::vector<std::function<double(const Point&)>> functions = {
        [](const Point& x) { return x[0] > 0.0835 ? 1.0 : 0.0; },
        [](const Point& x) { return std::pow(std::abs(x[0]) - 2.4, 2); }, [](const Point& x) { return std::abs(x[0]); },
        [](const Point& x) { return x[1] * x[1] + x[2] * x[2]; }, [](const Point& x) { return x[1] + x[2]; }};
    const WellSampler sampler(tilt);
    Random random(seed);
    return largestDeviation<Point>(
        functions, samples, [&] { return sampler.draw(random); }, move);
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_ANNEALEDTOY_H_*/
