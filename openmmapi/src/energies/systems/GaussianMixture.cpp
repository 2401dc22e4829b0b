// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/GaussianMixture.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <numeric>
#include <openmm/CustomExternalForce.h>

using namespace OpenMMFlow;
using std::vector;

GaussianMixture::GaussianMixture(vector<double> newWeights, vector<double> newMeanX, vector<double> newMeanY,
                                 vector<double> newSigma)
    : weights(std::move(newWeights)), meanX(std::move(newMeanX)), meanY(std::move(newMeanY)),
      sigma(std::move(newSigma)) {
    const char* where = "GaussianMixture::GaussianMixture";
    require(!weights.empty(), where, "number of weights", 0, "at least 1");
    for (const auto& [name, list] :
         {std::pair("meanX", &meanX), std::pair("meanY", &meanY), std::pair("sigma", &sigma)})
        require(list->size() == weights.size(), where, std::string("size of ") + name, list->size(),
                "that of weights, " + std::to_string(weights.size()));
    for (std::size_t k = 0; k < weights.size(); k++) {
        require(weights[k] > 0 && std::isfinite(weights[k]), where, "a weight", weights[k], "positive and finite");
        require(sigma[k] > 0 && std::isfinite(sigma[k]), where, "a sigma", sigma[k], "positive and finite");
        require(std::isfinite(meanX[k] + meanY[k]), where, "a mean", meanX[k] + meanY[k], "finite");
    }
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (double& weight : weights)
        weight /= sum;
}

vector<double> GaussianMixture::getMean() const {
    return {std::inner_product(weights.begin(), weights.end(), meanX.begin(), 0.0),
            std::inner_product(weights.begin(), weights.end(), meanY.begin(), 0.0)};
}

vector<double> GaussianMixture::getCovariance() const {
    const vector<double> mean = getMean();
    vector<double> covariance(3, 0.0);
    for (std::size_t k = 0; k < weights.size(); k++) {
        const double dx = meanX[k] - mean[0], dy = meanY[k] - mean[1], variance = sigma[k] * sigma[k];
        covariance[0] += weights[k] * (variance + dx * dx);
        covariance[1] += weights[k] * dx * dy;
        covariance[2] += weights[k] * (variance + dy * dy);
    }
    return covariance;
}

double GaussianMixture::energy(double x, double y) const {
    vector<double> terms;
    for (std::size_t k = 0; k < weights.size(); k++) {
        const double dx = (x - meanX[k]) / sigma[k], dy = (y - meanY[k]) / sigma[k];
        terms.push_back(std::log(weights[k] / (2 * M_PI * sigma[k] * sigma[k])) - 0.5 * (dx * dx + dy * dy));
    }
    const double largest = *std::max_element(terms.begin(), terms.end());
    double sum = 0;
    for (const double term : terms)
        sum += std::exp(term - largest);
    return -largest - std::log(sum);
}

at::Tensor GaussianMixture::sample(std::int64_t count, Random& random) const {
    require(count >= 1, "GaussianMixture::sample", "count", count, "at least 1");
    at::Tensor samples = at::empty({count, 2}, at::kDouble);
    auto rows = samples.accessor<double, 2>();
    for (std::int64_t i = 0; i < count; i++) {
        double rest = random.uniform();
        std::size_t k = 0;
        while (k + 1 < weights.size() && rest > weights[k])
            rest -= weights[k++];
        rows[i][0] = meanX[k] + sigma[k] * random.normal();
        rows[i][1] = meanY[k] + sigma[k] * random.normal();
    }
    return samples;
}

// -ln sum_k exp(t_k), with the largest term taken out of the sum: far from every component all exp(t_k) are 0.
std::unique_ptr<OpenMM::System> GaussianMixture::createSystem() const {
    std::ostringstream sum, terms;
    std::string largest = "t0";
    terms.precision(17);
    for (std::size_t k = 0; k < weights.size(); k++) {
        const double variance = sigma[k] * sigma[k];
        if (k > 0)
            largest = "max(" + largest + ",t" + std::to_string(k) + ")";
        sum << "+exp(t" << k << "-largest)";
        terms << ";t" << k << "=(" << std::log(weights[k] / (2 * M_PI * variance)) << ")-((x-(" << meanX[k]
              << "))^2+(y-(" << meanY[k] << "))^2)/" << 2 * variance;
    }
    auto system = std::make_unique<OpenMM::System>();
    auto* force =
        new OpenMM::CustomExternalForce("z^2/2-largest-log(0" + sum.str() + ");largest=" + largest + terms.str());
    force->addParticle(system->addParticle(1.0));
    system->addForce(force);
    return system;
}

std::vector<OpenMM::Vec3> GaussianMixture::getPositions() const {
    return {OpenMM::Vec3(meanX[0], meanY[0], 0)};
}
