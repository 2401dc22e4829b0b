// SPDX-License-Identifier: MIT
// Flows on a GPU against the same on the processor: skipped where torch finds none.

#include "api/ApiPlatforms.h"
#include "contracts/FlowContract.h"
#include "flows/DeviceKernels.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/flows/Sequence.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

struct CudaFlows : testing::Test {
    void SetUp() override {
        try {
            (void)getPlatform("CUDA");             // loads the kernels too
        } catch (const OpenMM::OpenMMException&) { // tensors need no Platform
        }
        if (!at::hasCUDA())
            GTEST_SKIP() << "torch finds no CUDA device";
        ASSERT_NE(findDeviceKernels(at::kCUDA), nullptr);
    }
};

/** Splines on all coordinates of a small molecule, then its chart. */
std::shared_ptr<Flow> makeFlow(at::ScalarType dtype) {
    const auto chart = std::make_shared<InternalCoordinates>(
        std::vector<ZMatrixRow>{{3, 1, 0, 2, TorsionRange::Circle, 0}, {4, 0, 1, 2, TorsionRange::Positive, 0}},
        std::vector<int>{0, 1, 2}, std::vector<double>(5, 0.0));
    const auto spline = [](std::vector<int> active) {
        return std::make_shared<SplineCoupling>(9, std::move(active), std::vector<int>{7},
                                                SplineCoupling::Options{8, 4.0, {{64}, Activation::SiLU, 3}});
    };
    const auto sequence = std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{
        spline({0, 2, 4, 6, 8}), spline({1, 3, 5, 7}),
        std::make_shared<Scaling>(std::vector<double>{0.15, 0.14, 0.11, 0.1, 1.9, 1.8, 2.0, 0.0, 1.5},
                                  std::vector<double>{0.01, 0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 1.0, 0.1}),
        chart});
    randomiseParameters(*sequence, 0.1);
    const auto prior = std::make_shared<ProductPrior>(
        std::vector<std::shared_ptr<Prior>>{std::make_shared<GaussianPrior>(7), std::make_shared<UniformTorusPrior>(1),
                                            std::make_shared<GaussianPrior>(1)});
    auto flow = std::make_shared<Flow>(prior, sequence);
    flow->setParameterType(dtype);
    return flow;
}

} // namespace

TEST_F(CudaFlows, SamplesDensitiesAndGradientsAreThoseOfTheProcessor) {
    for (const auto dtype : {at::kFloat, at::kDouble})
        for (const std::int64_t batch : {1, 3, 1000}) {
            SCOPED_TRACE(testing::Message() << at::toString(dtype) << ", batch " << batch);
            const double tolerance = dtype == at::kDouble ? 1e-9 : 2e-3;
            const auto flow = makeFlow(dtype), onDevice = flow->to("cuda");
            Random random(1), same(1);
            const at::NoGradGuard noGrad;
            const FlowSample expected = flow->sample(batch, random), found = onDevice->sample(batch, same);
            ASSERT_TRUE(found.x.is_cuda());
            EXPECT_TRUE(at::equal(found.z.cpu(), expected.z));
            EXPECT_TRUE(at::allclose(found.x.cpu(), expected.x, tolerance, tolerance));
            EXPECT_TRUE(at::allclose(found.logQ.cpu(), expected.logQ, tolerance, tolerance));
            EXPECT_TRUE(at::allclose(onDevice->logQ(found.x), found.logQ, tolerance, tolerance));
            const LogQGradient host = flow->logQWithGradient(expected.x);
            const LogQGradient device = onDevice->logQWithGradient(expected.x.cuda());
            EXPECT_TRUE(at::allclose(device.logQ.cpu(), host.logQ, tolerance, tolerance));
            const double scale = host.gradient.abs().max().item<double>();
            EXPECT_LE((device.gradient.cpu() - host.gradient).abs().max().item<double>(), 10 * tolerance * scale);
        }
}

TEST_F(CudaFlows, ParametersHaveTheGradientsOfTheProcessor) {
    const auto flow = makeFlow(at::kDouble), onDevice = flow->to("cuda");
    Random random(2);
    const Tensor x = flow->sample(500, random).x.detach();
    const auto gradients = [](const Flow& of, const Tensor& data) {
        std::vector<Tensor> parameters;
        for (const auto& [name, tensor] : of.getParameters())
            parameters.push_back(tensor);
        return torch::autograd::grad({of.logQ(data).mean()}, parameters);
    };
    const auto host = gradients(*flow, x), device = gradients(*onDevice, x.cuda());
    for (std::size_t i = 0; i < host.size(); i++)
        EXPECT_TRUE(at::allclose(device[i].cpu(), host[i], 1e-8, 1e-9)) << i;
}

TEST_F(CudaFlows, RowsOutsideOfTheDomainAndEmptyBatches) {
    const auto flow = makeFlow(at::kFloat), onDevice = flow->to("cuda");
    Random random(3);
    const at::NoGradGuard noGrad;
    Tensor x = flow->sample(40, random).x;
    x[3].fill_(NAN);
    x[5] = x[5][0].expand({15});
    const Tensor host = flow->logQ(x), device = onDevice->logQ(x.cuda()).cpu();
    EXPECT_TRUE(at::equal(at::isfinite(host), at::isfinite(device)));
    EXPECT_FALSE(at::isfinite(device[3]).item<bool>());
    EXPECT_EQ(onDevice->logQ(x.narrow(0, 0, 0).cuda()).numel(), 0);
}

TEST_F(CudaFlows, GoesBackAndForth) {
    const auto flow = makeFlow(at::kFloat), onDevice = flow->to("cuda"), back = onDevice->to("cpu");
    Random random(4);
    const at::NoGradGuard noGrad;
    const Tensor x = flow->sample(20, random).x;
    EXPECT_TRUE(at::equal(back->logQ(x), flow->logQ(x)));
    EXPECT_EQ(onDevice->clone()->getDevice(), "cuda");
    EXPECT_EQ(onDevice->serialize(), flow->serialize());
}
