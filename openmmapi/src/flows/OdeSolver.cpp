// SPDX-License-Identifier: MIT

#include "OdeSolver.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr double smallestStep = 1e-12, smallestFactor = 0.2, largestFactor = 5.0, safety = 0.9;

/**
 * An explicit Runge-Kutta formula: k_i = f(t + c_i h, s + h sum_j a_ij k_j), s' = s + h sum_i b_i k_i. The slope at the
 * new point is evaluated too, as the first of the next step and the last of the error estimate h sum_i e_i k_i.
 */
struct Formula {
    std::vector<std::vector<double>> a; // of the second stage and those after it
    std::vector<double> b, c, error;    // error: empty where there is no estimate
};

const Formula rungeKutta4 = {{{0.5}, {0, 0.5}, {0, 0, 1}}, {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6}, {0, 0.5, 0.5, 1}, {}};

const Formula dormandPrince = {{{1.0 / 5},
                                {3.0 / 40, 9.0 / 40},
                                {44.0 / 45, -56.0 / 15, 32.0 / 9},
                                {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
                                {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656}},
                               {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84},
                               {0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1},
                               {71.0 / 57600, 0, -71.0 / 16695, 71.0 / 1920, -17253.0 / 339200, 22.0 / 525, -1.0 / 40}};

/** sum_i coefficient_i k_i. @param k  [stages, active, n], of which the first ones are used */
Tensor combine(const std::vector<double>& coefficients, const Tensor& k) {
    const auto count = static_cast<std::int64_t>(coefficients.size());
    const Tensor flat = k.narrow(0, 0, count).reshape({count, -1});
    return at::mv(flat.t(), at::tensor(coefficients, flat.options())).reshape({k.size(1), k.size(2)});
}

/** The rows under way. elapsed runs from 0 to 1 in both directions. */
struct Active {
    Tensor rows, state, slope, elapsed, step;
    void keep(const Tensor& index) {
        for (Tensor* part : {&rows, &state, &slope, &elapsed, &step})
            *part = part->index_select(0, index);
    }
};

/** A step tried: the stages' states and slopes, the new state and its slope. */
struct Trial {
    std::vector<Tensor> states;
    Tensor k, state, slope;
};

} // namespace

Tensor OdeSolver::solve(const Field& field, const Tensor& start, Direction direction, const OdeOptions& options,
                        const Observer& observer) {
    const bool adaptive = options.method == OdeMethod::DormandPrince;
    const Formula& formula = adaptive ? dormandPrince : rungeKutta4;
    const std::size_t stages = formula.b.size();
    const double sign = direction == Direction::ZeroToOne ? 1.0 : -1.0;
    const auto timeAt = [&](const Tensor& elapsed) { return sign > 0 ? elapsed : 1 - elapsed; };
    const auto slopeAt = [&](const Tensor& elapsed, const Tensor& state, const Tensor& rows) {
        return sign * field(timeAt(elapsed), state, rows);
    };
    const auto tryStep = [&](const Active& active, const Tensor& h) {
        Trial trial{{active.state},
                    at::empty({static_cast<std::int64_t>(stages) + 1, h.size(0), start.size(1)}, start.options()),
                    {},
                    {}};
        const Tensor column = h.unsqueeze(1);
        trial.k[0].copy_(active.slope);
        for (std::size_t i = 1; i < stages; i++) {
            trial.states.push_back(active.state + column * combine(formula.a[i - 1], trial.k));
            trial.k[static_cast<std::int64_t>(i)].copy_(
                slopeAt(active.elapsed + formula.c[i] * h, trial.states.back(), active.rows));
        }
        trial.state = active.state + column * combine(formula.b, trial.k);
        trial.slope = slopeAt(active.elapsed + h, trial.state, active.rows);
        trial.k[static_cast<std::int64_t>(stages)].copy_(trial.slope);
        return trial;
    };
    const auto show = [&](const Active& active, const Trial& trial, const Tensor& h, const Tensor& accepted) {
        std::vector<Tensor> t, states, rows, weights;
        for (std::size_t i = 0; i < stages; i++)
            if (formula.b[i] != 0) {
                t.push_back(timeAt(active.elapsed + formula.c[i] * h).index_select(0, accepted));
                states.push_back(trial.states[i].index_select(0, accepted));
                rows.push_back(active.rows.index_select(0, accepted));
                weights.push_back((formula.b[i] * h).index_select(0, accepted));
            }
        observer(at::cat(t), at::cat(states), at::cat(rows), at::cat(weights));
    };

    Tensor result = at::full_like(start, NAN);
    Active active;
    active.rows = at::isfinite(start).all(1).nonzero().squeeze(1);
    active.state = start.index_select(0, active.rows);
    active.elapsed = at::zeros({active.rows.size(0)}, start.options());
    active.step = at::full_like(active.elapsed, adaptive ? std::min(1.0, std::pow(options.absoluteTolerance, 0.2))
                                                         : 1.0 / options.steps);
    if (active.rows.size(0) > 0)
        active.slope = slopeAt(active.elapsed, active.state, active.rows);
    const int most = adaptive ? options.maxSteps : options.steps;
    for (int count = 0; count < most && active.rows.size(0) > 0; count++) {
        const Tensor left = 1 - active.elapsed, last = active.step * (1 + 1e-9) >= left;
        const Tensor h = at::where(last, left, active.step);
        const Trial trial = tryStep(active, h);
        Tensor accepted = at::ones_like(last), lost = at::zeros_like(last);
        if (adaptive) {
            const Tensor scale = options.absoluteTolerance +
                                 options.relativeTolerance * at::maximum(active.state.abs(), trial.state.abs());
            const Tensor error =
                at::nan_to_num(((h.unsqueeze(1) * combine(formula.error, trial.k)).abs() / scale).amax(1), INFINITY);
            accepted = error <= 1;
            active.step = h * at::clamp(safety * error.pow(-0.2), smallestFactor, largestFactor);
            lost = active.step < smallestStep;
        }
        if (observer)
            show(active, trial, h, accepted.nonzero().squeeze(1));
        const Tensor moved = accepted.unsqueeze(1);
        active.state = at::where(moved, trial.state, active.state);
        active.slope = at::where(moved, trial.slope, active.slope);
        active.elapsed = at::where(accepted, active.elapsed + h, active.elapsed);
        const Tensor arrived = accepted & last;
        if ((arrived | lost).any().item<bool>()) {
            const Tensor done = arrived.nonzero().squeeze(1);
            result.index_copy_(0, active.rows.index_select(0, done), active.state.index_select(0, done));
            active.keep((~(arrived | lost)).nonzero().squeeze(1));
        }
    }
    const Tensor failed = ~at::isfinite(result).all(1, true);
    return result.masked_fill_(failed, NAN);
}
