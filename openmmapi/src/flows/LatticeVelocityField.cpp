// SPDX-License-Identifier: MIT

#include "openmmflow/flows/LatticeVelocityField.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

struct LatticeVelocityField::Features {
    Tensor field, phases, sines, cosines; // [batch, 1 or frequencies, sites]
    Tensor time;                          // cos(pi k t), [batch, timeFunctions]
    Tensor spectrum;                      // of (g_f), complex [batch, 1 + frequencies, momenta]
    Tensor kernelSpectrum;                // real, of the same shape
    Tensor atOrigin;                      // K_f(0, t), [batch, 1 + frequencies]
    Tensor velocity, slopes;              // [batch, sites]; sum_x g_f'(phi_x), [batch, 1 + frequencies]
};

namespace {

/** A complex tensor times a real one. */
Tensor scale(const Tensor& z, const Tensor& factor) {
    return at::view_as_complex(at::view_as_real(z) * factor.unsqueeze(-1));
}

} // namespace

LatticeVelocityField::LatticeVelocityField(std::vector<int> extents, const Options& newOptions)
    : lattice(std::move(extents)), options(newOptions) {
    const char* where = "LatticeVelocityField::LatticeVelocityField";
    require(options.frequencies >= 0, where, "frequencies", options.frequencies, "at least 0");
    require(options.maxFrequency > 0 && std::isfinite(options.maxFrequency), where, "maxFrequency",
            options.maxFrequency, "positive and finite");
    require(options.timeFunctions >= 1, where, "timeFunctions", options.timeFunctions, "at least 1");
    for (const int extent : lattice.getExtents()) {
        dimensions.push_back(2 + static_cast<std::int64_t>(shape.size()));
        shape.push_back(extent);
    }
    const Tensor orbits = lattice.getOrbits();
    const std::int64_t numOrbits = 1 + orbits.max().item<std::int64_t>();
    const Tensor indicators = (at::arange(numOrbits, at::kLong).unsqueeze(1) == orbits).to(at::kDouble);
    waves = at::real(transform(indicators.unsqueeze(0))).squeeze(0).contiguous();
    // A real field's spectrum has its momenta in pairs q, -q, of which those of one half are kept.
    const std::int64_t last = shape.back(), kept = last / 2 + 1;
    Tensor pairs = at::full({kept}, 2.0, at::kDouble);
    pairs[0] = 1.0;
    if (last % 2 == 0)
        pairs[kept - 1] = 1.0;
    weights = pairs.repeat({waves.size(1) / kept}) / lattice.getSize();
    kernel = at::zeros({options.timeFunctions, 1 + options.frequencies, numOrbits}, at::kFloat).set_requires_grad(true);
    frequencies =
        (options.maxFrequency / std::max(1, options.frequencies) * at::arange(1, options.frequencies + 1, at::kDouble))
            .to(at::kFloat)
            .set_requires_grad(true);
}

const std::vector<int>& LatticeVelocityField::getCircular() const {
    static const std::vector<int> none;
    return none;
}

NamedTensors LatticeVelocityField::getParameters() const {
    return {{"kernel", kernel}, {"frequencies", frequencies}};
}

std::shared_ptr<VelocityField> LatticeVelocityField::withParameters(std::vector<Tensor> tensors) const {
    auto other = std::make_shared<LatticeVelocityField>(*this);
    other->kernel = tensors.at(0);
    other->frequencies = tensors.at(1);
    return other;
}

std::int64_t LatticeVelocityField::countIntermediates(std::int64_t probes) const {
    return std::int64_t{8} * (1 + options.frequencies) * lattice.getSize();
}

/** @param fields  [batch, n, sites]  @return complex [batch, n, momenta] */
Tensor LatticeVelocityField::transform(const Tensor& fields) const {
    std::vector<std::int64_t> sizes = {fields.size(0), fields.size(1)};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    return at::fft_rfftn(fields.reshape(sizes), std::nullopt, dimensions).flatten(2);
}

/** @param spectrum  complex [batch, n, momenta]  @return [batch, n, sites] */
Tensor LatticeVelocityField::transformBack(const Tensor& spectrum) const {
    std::vector<std::int64_t> sizes = {spectrum.size(0), spectrum.size(1)};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    sizes.back() = shape.back() / 2 + 1;
    return at::fft_irfftn(spectrum.reshape(sizes), at::IntArrayRef(shape), dimensions).flatten(2);
}

LatticeVelocityField::Features LatticeVelocityField::makeFeatures(const Tensor& y, const Tensor& t) const {
    Features result;
    const Tensor w = kernel.to(at::kDouble), omega = frequencies.to(at::kDouble);
    const std::int64_t batch = y.size(0);
    result.field = y.unsqueeze(1);
    result.phases = result.field * omega.unsqueeze(1);
    result.sines = result.phases.sin();
    result.cosines = result.phases.cos();
    result.time = (M_PI * t.unsqueeze(1) * at::arange(options.timeFunctions, t.options())).cos();
    result.spectrum = transform(at::cat({result.field, result.sines}, 1));
    const Tensor spectra = at::matmul(w, waves); // [timeFunctions, 1 + frequencies, momenta]
    result.kernelSpectrum = at::mm(result.time, spectra.flatten(1)).reshape({batch, spectra.size(1), -1});
    result.atOrigin = at::mm(result.time, w.select(2, 0));
    result.velocity = transformBack(scale(result.spectrum, result.kernelSpectrum).sum(1, true)).squeeze(1);
    result.slopes = at::cat({repeatForRows(lattice.getSize(), y).unsqueeze(1), omega * result.cosines.sum(2)}, 1);
    return result;
}

Tensor LatticeVelocityField::operator()(const Tensor& y, const Tensor& t) const {
    return makeFeatures(y, t).velocity;
}

VelocityResult LatticeVelocityField::evaluate(const Tensor& y, const Tensor& t, const Tensor& probes) const {
    const Features features = makeFeatures(y, t);
    return {features.velocity, (features.atOrigin * features.slopes).sum(1)};
}

/*
 * Of s = sum_x a_x v_x + b div v, with h_f(y) = sum_x K_f(x - y) a_x (K is even in its displacement) and the sums over
 * displacements and over momenta related by Parseval's theorem:
 *
 *     ds/dphi_y   = sum_f [h_f(y) g_f'(phi_y) + b K_f(0) g_f''(phi_y)]
 *     ds/domega_f = sum_y [h_f(y) phi_y cos(p) + b K_f(0) (cos(p) - p sin(p))], p = omega_f phi_y
 *     ds/dw_kfo   = cos(pi k t) [sum_{d in o} sum_y a_{y+d} g_f(phi_y) + b [o = 0] sum_x g_f'(phi_x)]
 */
VelocityField::PullBack LatticeVelocityField::pullBack(const Tensor& y, const Tensor& t, const Tensor& probes,
                                                       const Tensor& onVelocity, const Tensor& onDivergence,
                                                       Derivatives derivatives) const {
    const at::NoGradGuard noGrad;
    const Features features = makeFeatures(y, t);
    const Tensor a = transform(onVelocity.unsqueeze(1)), b = onDivergence.unsqueeze(1);
    const Tensor h = transformBack(scale(a, features.kernelSpectrum));
    const Tensor h0 = h.select(1, 0), hs = h.narrow(1, 1, options.frequencies);
    const Tensor omega = frequencies.to(at::kDouble).unsqueeze(1);
    const Tensor origin = (b * features.atOrigin.narrow(1, 1, options.frequencies)).unsqueeze(2);
    PullBack back;
    back.velocity = features.velocity;
    back.onArgument = h0 + (omega * (hs * features.cosines - origin * omega * features.sines)).sum(1);
    if (derivatives == Derivatives::ByArgument)
        return back;
    const Tensor correlation = at::real(a * features.spectrum.conj()) * weights;
    Tensor onKernel = at::mm(features.time.t(), correlation.flatten(1)); // [timeFunctions, (1 + frequencies) momenta]
    onKernel = at::matmul(onKernel.reshape({options.timeFunctions, 1 + options.frequencies, -1}), waves.t());
    onKernel.select(2, 0) += at::mm(features.time.t(), b * features.slopes);
    const Tensor onFrequencies =
        (hs * features.field * features.cosines + origin * (features.cosines - features.phases * features.sines))
            .sum({2, 0}); // {0, 2} is ambiguous in torch 2.11: also a null pointer and a length
    back.onParameters = {onKernel, onFrequencies};
    return back;
}

nlohmann::json LatticeVelocityField::getArchitecture() const {
    return {{"type", "LatticeVelocityField"},
            {"extents", lattice.getExtents()},
            {"frequencies", options.frequencies},
            {"maxFrequency", options.maxFrequency},
            {"timeFunctions", options.timeFunctions}};
}

std::shared_ptr<LatticeVelocityField> LatticeVelocityField::fromArchitecture(const nlohmann::json& a) {
    return std::make_shared<LatticeVelocityField>(
        a.at("extents").get<std::vector<int>>(),
        Options{a.at("frequencies").get<int>(), a.at("maxFrequency").get<double>(), a.at("timeFunctions").get<int>()});
}
