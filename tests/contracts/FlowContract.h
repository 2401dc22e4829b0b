#ifndef OPENMMFLOW_TESTS_FLOWCONTRACT_H_
#define OPENMMFLOW_TESTS_FLOWCONTRACT_H_
// SPDX-License-Identifier: MIT

#include "TestDevice.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/Transform.h"
#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>

namespace OpenMMFlow {

/** One row of the contract suite: a transform and latent points within its domain. */
struct FlowContractCase {
    std::string name;
    std::shared_ptr<Transform> transform; // equal input and output sizes
    at::Tensor z;                         // float64 [batch, size]
    bool identityAtStart = false;
};

/** Give every parameter a random value of the float64 dtype, so that nothing is hidden by a neutral start. */
inline void randomiseParameters(const Transform& transform, double scale = 0.3, std::uint64_t seed = 17) {
    Random random(seed);
    for (const auto& [name, tensor] : transform.getParameters()) {
        const at::NoGradGuard noGrad;
        tensor.set_data((scale * random.normal(1, tensor.numel())).reshape(tensor.sizes()));
    }
}

/** log|det| of the Jacobian of one row of a map, by autograd and LU. */
inline double autogradLogDet(const std::function<at::Tensor(const at::Tensor&)>& map, const at::Tensor& row) {
    const at::Tensor argument = row.detach().clone().unsqueeze(0).set_requires_grad(true);
    const at::Tensor value = map(argument);
    std::vector<at::Tensor> rows;
    for (std::int64_t i = 0; i < value.size(1); i++)
        rows.push_back(torch::autograd::grad({value[0][i]}, {argument}, {}, true)[0][0]);
    return std::get<1>(at::linalg_slogdet(at::stack(rows))).item<double>();
}

/** Some rows of a batch, in turn. */
inline at::Tensor takeRows(const at::Tensor& t, std::int64_t count) {
    return t.detach().index_select(0, at::arange(count, at::kLong).remainder(t.size(0)));
}

/** The largest difference, relative to the largest number. */
inline double relativeDifference(const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>() / (1e-300 + b.abs().max().item<double>());
}

/** Value, logDet and gradient of one pass, to be compared. */
struct PullBackNumbers {
    at::Tensor value, logDet, gradient;
    PullBackNumbers(const PulledResult& pulled, const at::Tensor& onValue)
        : value(pulled.result.value), logDet(pulled.result.logDet), gradient(pulled.pullBack(onValue)) {}
    /** The largest difference, each relative to its largest number. */
    [[nodiscard]] double distance(const PullBackNumbers& other) const {
        const double change = (logDet - other.logDet).abs().max().item<double>();
        return std::max({relativeDifference(value, other.value), relativeDifference(gradient, other.gradient),
                         change / (1 + other.logDet.abs().max().item<double>())});
    }
};

/**
 * The pull-back is autograd's, for batches that are computed in different ways, and agrees with central differences;
 * values without a graph are those with one. All to rounding: of 1e-12 with float64 parameters; with float32 ones, as
 * close to the result with the same numbers in float64 as autograd's, within an order of magnitude.
 */
inline void checkPullBack(const Transform& transform, const at::Tensor& allOfX) {
    Random random(29);
    const NamedTensors parameters = transform.getParameters();
    const bool single = !parameters.empty() && parameters[0].second.scalar_type() == at::kFloat;
    for (const std::int64_t batch : {1, 3, 70}) {
        SCOPED_TRACE("batch " + std::to_string(batch));
        const at::Tensor x = takeRows(allOfX, batch), copy = x.clone();
        const at::Tensor onValue = random.normal(batch, transform.getInputSize());
        const PullBackNumbers found(transform.inverseWithPullBack(x), onValue);
        const PullBackNumbers byAutograd(transform.Transform::inverseWithPullBack(x), onValue);
        for (const auto& t : {found.value, found.logDet, found.gradient})
            EXPECT_FALSE(t.requires_grad());
        EXPECT_EQ(found.gradient.sizes(), x.sizes());
        EXPECT_TRUE(at::equal(x, copy));
        const at::NoGradGuard noGrad;
        const TransformResult plain = transform.inverse(x), back = transform.forward(plain.value);
        EXPECT_LE(relativeDifference(plain.value, found.value), single ? 1e-4 : 1e-12);
        EXPECT_LE((plain.logDet - found.logDet).abs().max().item<double>(),
                  (single ? 1e-4 : 1e-12) * (1 + plain.logDet.abs().max().item<double>()));
        EXPECT_LE(relativeDifference(back.value, x), single ? 1e-6 : 1e-11);
        if (single) {
            std::vector<at::Tensor> floats;
            for (const auto& [name, tensor] : parameters) {
                floats.push_back(tensor.detach().clone());
                tensor.set_data(floats.back().to(at::kDouble));
            }
            const PullBackNumbers exact(transform.Transform::inverseWithPullBack(x), onValue);
            for (std::size_t i = 0; i < floats.size(); i++)
                parameters[i].second.set_data(floats[i]);
            EXPECT_LE(found.distance(exact), 1e-6 + 10 * byAutograd.distance(exact));
            continue;
        }
        EXPECT_LE(found.distance(byAutograd), 1e-12);
        const at::Tensor direction = random.normal(batch, x.size(1));
        const double h = 1e-6;
        const auto loss = [&](double step) {
            const TransformResult there = transform.inverse(x + step * direction);
            return ((there.value * onValue).sum() + there.logDet.sum()).item<double>();
        };
        const double along = (found.gradient * direction).sum().item<double>();
        EXPECT_NEAR((loss(h) - loss(-h)) / (2 * h), along, 1e-5 * (1 + found.gradient.norm().item<double>()));
    }
}

/** On a device, value, logDet and gradients are those of the processor. */
inline void checkOnDevice(const std::shared_ptr<Transform>& transform, const at::Tensor& z) {
    const Flow flow(std::make_shared<GaussianPrior>(transform->getInputSize()), transform);
    const auto copy = flow.to(getTestDevice());
    EXPECT_EQ(copy->serialize(), flow.serialize());
    const auto differentiate = [&](const Transform& t, const at::Tensor& argument, bool inverse) {
        const at::Tensor leaf = argument.detach().clone().set_requires_grad(true);
        const TransformResult result = inverse ? t.inverse(leaf) : t.forward(leaf);
        std::vector<at::Tensor> variables{leaf}, all{result.value.detach(), result.logDet.detach()};
        for (const auto& [name, tensor] : t.getParameters())
            variables.push_back(tensor);
        for (const at::Tensor& gradient : torch::autograd::grad(
                 {(result.value * result.value).sum() + result.logDet.sum()}, variables, {}, false, false, true))
            all.push_back(gradient.defined() ? gradient : at::zeros({1}));
        return all;
    };
    for (const bool inverse : {false, true}) {
        const at::Tensor argument = inverse ? transform->forward(z).value.detach() : z;
        const auto expected = differentiate(*transform, argument, inverse);
        const auto found = differentiate(*copy->getTransform(), argument.to(at::Device(getTestDevice())), inverse);
        ASSERT_EQ(found.size(), expected.size());
        for (std::size_t i = 0; i < found.size(); i++)
            EXPECT_LE(relativeDifference(found[i].to(at::kCPU), expected[i]), 1e-9)
                << "number " << i << (inverse ? ", inverse" : "");
    }
}

/** What every transform promises in Transform.h. Parameters are made float64 and random first. */
inline void checkFlowContract(const FlowContractCase& contract) {
    SCOPED_TRACE(contract.name);
    const Transform& transform = *contract.transform;
    const at::Tensor& z = contract.z;
    const auto largest = [](const at::Tensor& t) { return t.abs().max().item<double>(); };
    const auto forward = [&](const at::Tensor& t) { return transform.forward(t).value; };
    const auto inverse = [&](const at::Tensor& t) { return transform.inverse(t).value; };

    if (contract.identityAtStart) {
        EXPECT_LE(largest(transform.forward(z).value - z), 1e-5); // float32 parameters
        EXPECT_LE(largest(transform.forward(z).logDet), 1e-4);
    }
    randomiseParameters(transform);
    const TransformResult there = transform.forward(z), back = transform.inverse(there.value);

    // Types and shapes.
    EXPECT_EQ(there.value.scalar_type(), at::kDouble);
    EXPECT_EQ(there.logDet.scalar_type(), at::kDouble);
    EXPECT_EQ(there.value.sizes(), (at::IntArrayRef{z.size(0), transform.getOutputSize()}));
    EXPECT_EQ(there.logDet.sizes(), (at::IntArrayRef{z.size(0)}));

    // Round trip, and the log-dets of the two directions.
    EXPECT_LE(largest(back.value - z), 1e-10);
    EXPECT_LE(largest(there.logDet + back.logDet), 1e-10);

    // The log-det is that of the Jacobian, in both directions.
    for (std::int64_t i = 0; i < std::min<std::int64_t>(z.size(0), 4); i++) {
        EXPECT_NEAR(there.logDet[i].item<double>(), autogradLogDet(forward, z[i]), 1e-9);
        EXPECT_NEAR(back.logDet[i].item<double>(), autogradLogDet(inverse, there.value[i]), 1e-9);
    }

    // Gradients of value and log-det by the argument and the parameters meet central differences.
    for (const bool useInverse : {false, true}) {
        const at::Tensor argument = useInverse ? there.value.detach() : z;
        Random random(23);
        const at::Tensor weight = random.normal(z.size(0), z.size(1)), logDetWeight = random.normal(1, z.size(0))[0];
        const auto loss = [&](const at::Tensor& t) {
            const TransformResult result = useInverse ? transform.inverse(t) : transform.forward(t);
            return (result.value * weight).sum() + (result.logDet * logDetWeight).sum();
        };
        std::vector<at::Tensor> variables = {argument.clone().set_requires_grad(true)};
        for (const auto& [name, tensor] : transform.getParameters())
            variables.push_back(tensor);
        const at::Tensor start = loss(variables[0]);
        const auto gradients = start.requires_grad() ? torch::autograd::grad({start}, variables, {}, false, false, true)
                                                     : std::vector<at::Tensor>();
        for (std::size_t v = 0; v < gradients.size(); v++) {
            const at::Tensor gradient = gradients[v].defined() ? gradients[v] : at::zeros_like(variables[v]);
            const at::Tensor direction = random.normal(1, variables[v].numel()).reshape(variables[v].sizes());
            const at::NoGradGuard noGrad;
            const double h = 1e-6;
            const auto along = [&](double step) {
                if (v == 0)
                    return loss(argument + step * direction).item<double>();
                const at::Tensor saved = variables[v].clone();
                variables[v].copy_(saved + step * direction);
                const double value = loss(argument).item<double>();
                variables[v].copy_(saved);
                return value;
            };
            const double difference = (along(h) - along(-h)) / (2 * h);
            const double expected = (gradient * direction).sum().item<double>();
            EXPECT_NEAR(difference, expected, 1e-5 * (1 + std::abs(expected)))
                << "variable " << v << (useInverse ? ", inverse" : "");
        }
    }

    // The pull-back, before and after parameters change in place.
    checkPullBack(transform, there.value);
    for (const double factor : {0.5, 2.0}) { // and, exactly, back
        for (const auto& [name, tensor] : transform.getParameters()) {
            const at::NoGradGuard noGrad;
            tensor.mul_(factor);
        }
        checkPullBack(transform, transform.forward(z).value);
    }

    // Rows do not influence each other, and the argument is left alone.
    const at::Tensor copy = z.clone();
    EXPECT_LE(largest(transform.forward(z.narrow(0, 1, 1)).value - there.value.narrow(0, 1, 1)), 1e-12);
    EXPECT_TRUE(at::equal(z, copy));

    // The promise of a constant log-det.
    if (transform.isConstantLogDet()) {
        EXPECT_LE(largest(there.logDet - there.logDet[0]), 1e-12);
    }

    // Made again from its description and tensors.
    const auto twin = Transform::create(transform.getArchitecture());
    const NamedTensors from = transform.getParameters(), to = twin->getParameters();
    ASSERT_EQ(from.size(), to.size());
    for (std::size_t i = 0; i < from.size(); i++) {
        EXPECT_EQ(from[i].first, to[i].first);
        to[i].second.set_data(from[i].second.detach().clone());
    }
    const NamedTensors buffers = transform.getBuffers(), twinBuffers = twin->getBuffers();
    ASSERT_EQ(buffers.size(), twinBuffers.size());
    for (std::size_t i = 0; i < buffers.size(); i++)
        twinBuffers[i].second.set_data(buffers[i].second.clone());
    EXPECT_TRUE(at::equal(twin->forward(z).value, there.value));

    checkOnDevice(contract.transform, z);

    // float32 networks: double round trip all the same, because both directions compute the same parameters.
    for (const auto& [name, tensor] : from)
        tensor.set_data(tensor.detach().to(at::kFloat));
    const TransformResult single = transform.forward(z);
    EXPECT_LE(largest(transform.inverse(single.value).value - z), 1e-6);
    EXPECT_LE(largest(single.value - there.value), 1e-3);
    checkPullBack(transform, single.value);
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_FLOWCONTRACT_H_*/
