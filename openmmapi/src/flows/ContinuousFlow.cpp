// SPDX-License-Identifier: MIT

#include "openmmflow/flows/ContinuousFlow.h"
#include "../latent/TensorTools.h"
#include "OdeSolver.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/Random.h"
#include <array>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Direction = OdeSolver::Direction;

namespace OpenMMFlow {
NLOHMANN_JSON_SERIALIZE_ENUM(OdeMethod,
                             {{OdeMethod::RungeKutta4, "RungeKutta4"}, {OdeMethod::DormandPrince, "DormandPrince"}})
}

namespace {

/** The four stages of a Runge-Kutta step: [4, active], [4, active, size + 1]; which rows, int64 [active]. */
struct Stages {
    Tensor times, states, rows;
};

/** An equation to solve, kept for the way back. The parameters' values are autograd's to keep. */
struct Equation : torch::CustomClassHolder {
    Equation(std::shared_ptr<VelocityField> field, const OdeOptions& solver, Direction direction, Tensor probes)
        : field(std::move(field)), solver(solver), direction(direction), probes(std::move(probes)) {}
    std::shared_ptr<VelocityField> field;
    OdeOptions solver;
    Direction direction;
    Tensor probes; // undefined for the exact divergence
    bool differentiated = false;
    std::vector<Stages> steps; // of Runge-Kutta's, where gradients will be asked for
};

Tensor pick(const Tensor& probes, const Tensor& rows) {
    return probes.defined() ? probes.index_select(0, rows) : Tensor();
}

std::vector<Tensor> inDouble(at::ArrayRef<Tensor> tensors) {
    std::vector<Tensor> list;
    for (const Tensor& tensor : tensors)
        list.push_back(tensor.detach().to(at::kDouble));
    return list;
}

/** Collects quadrature nodes of the adjoint equation and sums what they add to dLoss/dtheta, many at a time. */
class ParameterGradient {
public:
    /** Each row has its probes, its b, and the factor by which its (a, b) was scaled. */
    ParameterGradient(const VelocityField& field, Tensor probes, Tensor onLogDet, Tensor rowScale)
        : field(field), probes(std::move(probes)), onLogDet(std::move(onLogDet)), rowScale(std::move(rowScale)) {
        const std::int64_t numProbes = this->probes.defined() ? this->probes.size(1) : 0;
        mostRows = std::max<std::int64_t>(1, maxNumbers / field.countIntermediates(numProbes));
    }
    void add(const Tensor& t, const Tensor& state, const Tensor& rows, const Tensor& weight) {
        times.push_back(t);
        states.push_back(state);
        indices.push_back(rows);
        weights.push_back(weight);
        numRows += t.size(0);
        if (numRows >= mostRows)
            flush();
    }
    /** @return the sum over all nodes, in the order of the parameters; empty if there were none */
    [[nodiscard]] std::vector<Tensor> finish() {
        flush();
        return sum;
    }

private:
    void flush() {
        if (numRows == 0)
            return;
        const Tensor allTimes = at::cat(times), allStates = at::cat(states), allRows = at::cat(indices),
                     allWeights = at::cat(weights);
        for (auto* list : {&times, &states, &indices, &weights})
            list->clear();
        for (std::int64_t start = 0; start < numRows; start += mostRows) {
            const std::int64_t count = std::min(mostRows, numRows - start);
            const Tensor rows = allRows.narrow(0, start, count), state = allStates.narrow(0, start, count);
            const Tensor weight = allWeights.narrow(0, start, count) * rowScale.index_select(0, rows);
            const auto ya = state.chunk(2, 1);
            const auto back = field.pullBack(ya[0], allTimes.narrow(0, start, count), pick(probes, rows),
                                             weight.unsqueeze(1) * ya[1], weight * onLogDet.index_select(0, rows),
                                             VelocityField::Derivatives::ByArgumentAndParameters);
            if (sum.empty())
                sum = back.onParameters;
            else
                at::_foreach_add_(sum, back.onParameters);
        }
        numRows = 0;
    }
    static constexpr std::int64_t maxNumbers = std::int64_t{1} << 22; // 32 MB of intermediate results
    const VelocityField& field;
    Tensor probes, onLogDet, rowScale;
    std::int64_t mostRows, numRows = 0;
    std::vector<Tensor> times, states, indices, weights, sum;
};

/**
 * The derivatives of the Runge-Kutta formula itself, step by step from the last: of s' = s + h sum_i b_i k_i with
 * k_i = f(s + h c_i k_{i-1}), a bar for the derivative of a loss by a quantity,
 *
 *     bark_i = h (b_i bars' + c_{i+1} bars_{i+1}),  bars_i = bark_i^T df/ds,    bars = bars' + sum_i bars_i
 */
variable_list reverseSteps(const Equation& equation, const variable_list& gradients, at::ArrayRef<Tensor> parameters) {
    constexpr std::array<double, 4> b = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6}, c = {0, 0.5, 0.5, 1};
    const auto field = equation.field->withParameters(inDouble(parameters));
    const std::int64_t size = field->getSize();
    const double h = 1.0 / equation.solver.steps, sign = equation.direction == Direction::ZeroToOne ? 1.0 : -1.0;
    variable_list result = {at::zeros_like(gradients[0]), Tensor()};
    for (const Tensor& parameter : parameters)
        result.push_back(at::zeros_like(parameter, at::kDouble));
    if (!equation.steps.empty()) {
        const Tensor active = equation.steps.front().rows; // rows on which nothing depends are left out
        const Tensor depends = (gradients[0] != 0).any(1) | (gradients[1] != 0);
        const Tensor chosen = depends.index_select(0, active).nonzero().squeeze(1),
                     rows = active.index_select(0, chosen);
        const Tensor probes = pick(equation.probes, rows), onLogDet = gradients[1].index_select(0, rows);
        Tensor onState = gradients[0].index_select(0, rows);
        for (auto step = equation.steps.rbegin(); step != equation.steps.rend(); ++step) {
            Tensor sum = onState, onNext;
            for (int i = 3; i >= 0; i--) {
                const Tensor y = step->states[i].index_select(0, chosen).narrow(1, 0, size);
                const Tensor onSlope = i == 3 ? h * b[i] * onState : h * (b[i] * onState + c[i + 1] * onNext);
                const auto back =
                    field->pullBack(y, step->times[i].index_select(0, chosen), probes, sign * onSlope,
                                    sign * h * b[i] * onLogDet, VelocityField::Derivatives::ByArgumentAndParameters);
                onNext = back.onArgument;
                sum = sum + onNext;
                for (std::size_t j = 0; j < parameters.size(); j++)
                    result[2 + j] += back.onParameters[j].reshape(parameters[j].sizes());
            }
            onState = sum;
        }
        result[0].index_copy_(0, rows, onState);
    }
    for (std::size_t j = 0; j < parameters.size(); j++)
        result[2 + j] = result[2 + j].to(parameters[j].scalar_type());
    return result;
}

/** (y, log-det) at the other end, differentiable: by the steps of Runge-Kutta's formula, or by the adjoint equation. */
struct Solution : torch::autograd::Function<Solution> {
    static variable_list forward(AutogradContext* context, const Tensor& start,
                                 const c10::intrusive_ptr<Equation>& equation, at::TensorList parameters) {
        const std::int64_t size = start.size(1);
        const auto field = equation->field->withParameters(inDouble(parameters));
        const auto slope = [&](const Tensor& t, const Tensor& state, const Tensor& rows) {
            const Tensor y = state.narrow(1, 0, size);
            const VelocityResult v = equation->probes.defined()
                                         ? field->withEstimatedDivergence(y, t, pick(equation->probes, rows))
                                         : field->withDivergence(y, t);
            return at::cat({v.velocity, v.divergence.unsqueeze(1)}, 1);
        };
        OdeSolver::Observer observer;
        if (equation->solver.method == OdeMethod::RungeKutta4 && equation->differentiated)
            observer = [&](const Tensor& t, const Tensor& state, const Tensor& rows, const Tensor& weight) {
                equation->steps.push_back({t.reshape({4, -1}), state.reshape({4, -1, size + 1}), rows.chunk(4)[0]});
            };
        const Tensor end = OdeSolver::solve(slope, at::constant_pad_nd(start, {0, 1}), equation->direction,
                                            equation->solver, observer);
        const Tensor value = end.narrow(1, 0, size).clone();
        variable_list saved = {value.detach()};
        saved.insert(saved.end(), parameters.begin(), parameters.end());
        context->save_for_backward(saved);
        context->saved_data["equation"] = c10::IValue::make_capsule(equation);
        return {value, end.select(1, size).clone()};
    }

    static variable_list backward(AutogradContext* context, variable_list gradients) {
        refuseSecondDerivatives("ContinuousFlow");
        const auto saved = context->get_saved_variables();
        const auto capsule = context->saved_data["equation"].toCapsule();
        const auto& equation = static_cast<const Equation&>(*capsule);
        if (equation.solver.method == OdeMethod::RungeKutta4)
            return reverseSteps(equation, gradients, at::ArrayRef<Tensor>(saved).slice(1));
        const at::ArrayRef<Tensor> parameters = at::ArrayRef<Tensor>(saved).slice(1);
        const auto field = equation.field->withParameters(inDouble(parameters));
        const std::int64_t size = field->getSize();

        // The equation is linear in (a, b): rows are scaled to a largest component of 1, for which the tolerance is
        // meant. Rows on which nothing depends are left out.
        const Tensor scale = at::maximum(gradients[0].abs().amax(1), gradients[1].abs());
        const Tensor chosen = (scale != 0).nonzero().squeeze(1), rowScale = scale.index_select(0, chosen);
        const Tensor value = saved[0].index_select(0, chosen), probes = pick(equation.probes, chosen);
        const Tensor a = gradients[0].index_select(0, chosen) / rowScale.unsqueeze(1);
        const Tensor onLogDet = gradients[1].index_select(0, chosen) / rowScale;
        const auto slope = [&](const Tensor& t, const Tensor& state, const Tensor& rows) {
            const auto back =
                field->pullBack(state.narrow(1, 0, size), t, pick(probes, rows), state.narrow(1, size, size),
                                onLogDet.index_select(0, rows), VelocityField::Derivatives::ByArgument);
            return at::cat({back.velocity, -back.onArgument}, 1);
        };
        bool anyParameter = false;
        for (std::size_t i = 0; i < parameters.size(); i++)
            anyParameter |= context->needs_input_grad(1 + i);
        ParameterGradient integral(*field, probes, onLogDet, rowScale);
        OdeSolver::Observer observer;
        if (anyParameter)
            observer = [&](const Tensor& t, const Tensor& state, const Tensor& rows, const Tensor& weight) {
                integral.add(t, state, rows, weight);
            };
        const bool forward = equation.direction == Direction::ZeroToOne;
        const Tensor end =
            OdeSolver::solve(slope, at::cat({value, a}, 1), forward ? Direction::OneToZero : Direction::ZeroToOne,
                             equation.solver, observer);
        variable_list result = {at::zeros_like(gradients[0]), Tensor()};
        result[0].index_copy_(0, chosen, rowScale.unsqueeze(1) * end.narrow(1, size, size));
        const std::vector<Tensor> sum = integral.finish();
        const bool failed = !at::isfinite(end).all().item<bool>();
        for (std::size_t i = 0; i < parameters.size(); i++) {
            Tensor gradient =
                sum.empty()
                    ? at::zeros_like(parameters[i])
                    : ((forward ? 1.0 : -1.0) * sum[i]).reshape(parameters[i].sizes()).to(parameters[i].scalar_type());
            result.push_back(!anyParameter ? Tensor() : failed ? gradient.fill_(NAN) : gradient);
        }
        return result;
    }
};

void check(const OdeOptions& solver, std::string_view where) {
    require(solver.steps >= 1, where, "steps", solver.steps, "at least 1");
    require(solver.maxSteps >= 1, where, "maxSteps", solver.maxSteps, "at least 1");
    require(solver.absoluteTolerance >= 1e-14 && solver.absoluteTolerance < 1, where, "absoluteTolerance",
            solver.absoluteTolerance, "in [1e-14, 1)");
    require(solver.relativeTolerance >= 0 && solver.relativeTolerance < 1, where, "relativeTolerance",
            solver.relativeTolerance, "in [0, 1)");
}

} // namespace

ContinuousFlow::ContinuousFlow(int size, std::vector<int> circular, const Options& options)
    : ContinuousFlow(std::make_shared<NetworkVelocityField>(size, std::move(circular), options.field), options.solver) {
}

ContinuousFlow::ContinuousFlow(std::shared_ptr<VelocityField> newField, const OdeOptions& solver)
    : field(std::move(newField)), solver(solver), isCircular(at::zeros({field->getSize()}, at::kBool)) {
    check(solver, "ContinuousFlow::ContinuousFlow");
    for (int variable : field->getCircular())
        isCircular[variable] = true;
}

std::vector<Tensor> ContinuousFlow::getConstants() const {
    std::vector<Tensor> all = field->getConstants();
    all.push_back(isCircular);
    return all;
}

void ContinuousFlow::setSolver(const OdeOptions& options) {
    check(options, "ContinuousFlow::setSolver");
    solver = options;
}

TransformResult ContinuousFlow::forward(const Tensor& z) const {
    return integrate(z, false, {});
}

TransformResult ContinuousFlow::inverse(const Tensor& x) const {
    return integrate(x, true, {});
}

TransformResult ContinuousFlow::estimateInverse(const Tensor& x, int probes, Random& random) const {
    require(probes >= 1, "ContinuousFlow::estimateInverse", "probes", probes, "at least 1");
    const Tensor uniform = random.uniform(x.size(0) * probes, field->getSize()).to(x.device());
    return integrate(x, true, at::where(uniform < 0.5, -1.0, 1.0).to(at::kDouble).reshape({x.size(0), probes, -1}));
}

TransformResult ContinuousFlow::integrate(const Tensor& y, bool backwards, const Tensor& probes) const {
    std::vector<Tensor> parameters;
    for (const auto& [name, tensor] : getParameters())
        parameters.push_back(tensor);
    const auto equation =
        c10::make_intrusive<Equation>(field, solver, backwards ? Direction::OneToZero : Direction::ZeroToOne, probes);
    equation->differentiated =
        at::GradMode::is_enabled() && (y.requires_grad() || std::any_of(parameters.begin(), parameters.end(),
                                                                        [](auto& p) { return p.requires_grad(); }));
    const variable_list end = Solution::apply(y, equation, at::TensorList(parameters));
    const Tensor logDet = end[1];
    const Tensor value = at::where(isCircular, wrapAngle(end[0]), end[0]);
    if (!backwards)
        return {value, logDet};
    // log q is -inf in rows that failed, whatever a prior makes of their values.
    const Tensor arrived = ~at::isnan(logDet);
    return {whereRows(arrived, value, 0.0), whereRows(arrived, logDet, -INFINITY)};
}

nlohmann::json ContinuousFlow::getArchitecture() const {
    return {{"type", getTypeName()},
            {"size", field->getSize()},
            {"circular", field->getCircular()},
            {"method", solver.method},
            {"steps", solver.steps},
            {"absoluteTolerance", solver.absoluteTolerance},
            {"relativeTolerance", solver.relativeTolerance},
            {"maxSteps", solver.maxSteps},
            {"field", field->getArchitecture()}};
}

std::shared_ptr<ContinuousFlow> ContinuousFlow::fromArchitecture(const nlohmann::json& a) {
    const auto& method = a.at("method");
    require(method == "RungeKutta4" || method == "DormandPrince", "ContinuousFlow::fromArchitecture", "method",
            method.dump(), "RungeKutta4 or DormandPrince");
    const OdeOptions solver{method.get<OdeMethod>(), a.at("steps").get<int>(), a.at("absoluteTolerance").get<double>(),
                            a.at("relativeTolerance").get<double>(), a.at("maxSteps").get<int>()};
    return std::make_shared<ContinuousFlow>(
        VelocityField::create(a.at("field"), a.at("size").get<int>(), a.at("circular").get<std::vector<int>>()),
        solver);
}
