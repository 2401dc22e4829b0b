// SPDX-License-Identifier: MIT

#include "openmmflow/flows/EckartCoordinates.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <limits>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** sum_i x_i a_i^T, [batch, 3, 3]. @param x  [batch, n, 3]  @param a  [n, 3] */
Tensor correlate(const Tensor& x, const Tensor& a) {
    return at::matmul(x.transpose(1, 2), a);
}

/** G(x) = sum_i [(a_i . x_i) 1 - x_i a_i^T]: what an infinitesimal rotation of x changes of sum_i a_i x x_i. */
Tensor makeG(const Tensor& x, const Tensor& a) {
    const Tensor correlation = correlate(x, a);
    const Tensor trace = correlation.diagonal(0, 1, 2).sum(1);
    return trace.reshape({-1, 1, 1}) * at::eye(3, x.options().requires_grad(false)) - correlation;
}

/** v -> the matrix of w -> v x w, [batch, 3, 3]. @param v  [batch, 3] */
Tensor crossMatrix(const Tensor& v) {
    const Tensor zero = at::zeros_like(v.select(1, 0));
    const Tensor a = v.select(1, 0), b = v.select(1, 1), c = v.select(1, 2);
    return at::stack({zero, -c, b, c, zero, -a, -b, a, zero}, 1).reshape({-1, 3, 3});
}

/** The proper rotations R [batch, 3, 3] of least squared distance between R x_i and a_i. No graph. */
Tensor superpose(const Tensor& x, const Tensor& a) {
    const at::NoGradGuard noGrad;
    const auto [u, s, vh] = at::linalg_svd(correlate(x, a)); // R = V diag(1, 1, det) U^T
    const Tensor handedness = at::linalg_det(at::matmul(u, vh)).sign();
    Tensor signs = at::ones({x.size(0), 3}, x.options());
    signs.select(1, 2).copy_(handedness);
    return at::matmul(vh.transpose(1, 2) * signs.unsqueeze(1), u.transpose(1, 2));
}

Tensor centre(const Tensor& x) {
    return x - x.mean(1, true);
}

} // namespace

EckartCoordinates::EckartCoordinates(const Tensor& newReference) {
    const char* where = "EckartCoordinates::EckartCoordinates";
    require(newReference.dim() <= 2 && newReference.numel() % 3 == 0 && newReference.numel() >= 9 &&
                (newReference.dim() == 1 || newReference.size(1) == 3),
            where, "shape of the reference", newReference.sizes(), "[n, 3] or [3n], n at least 3");
    require(at::isfinite(newReference).all().item<bool>(), where, "the reference", "not finite", "finite");
    const Tensor atoms = newReference.detach().to(at::kDouble).reshape({1, -1, 3});
    reference = centre(atoms)[0].contiguous();
    const std::int64_t n = reference.size(0);
    // Six columns that span translations and rotations, completed to an orthonormal basis by QR.
    const Tensor unit = at::eye(3, at::kDouble);
    Tensor rigid = at::empty({3 * n, 6}, at::kDouble);
    for (int k = 0; k < 3; k++) {
        rigid.select(1, k).copy_(unit[k].repeat({n}));
        rigid.select(1, 3 + k).copy_(at::linalg_cross(unit[k].expand({n, 3}), reference).reshape({3 * n}));
    }
    const Tensor moments = at::linalg_eigvalsh(makeG(reference.unsqueeze(0), reference)[0]);
    require(moments[0].item<double>() > 1e-6 * moments[-1].item<double>(), where, "the reference", "on one line",
            "atoms that span a plane at least");
    basis = std::get<0>(at::linalg_qr(rigid, "complete")).narrow(1, 6, 3 * n - 6).contiguous();
    constant = computeConstant();
}

// (3/2) ln n - (1/2) ln det G(a)
double EckartCoordinates::computeConstant() const {
    const Tensor g = makeG(reference.unsqueeze(0), reference)[0];
    return 1.5 * std::log(static_cast<double>(getNumAtoms())) - 0.5 * std::log(at::linalg_det(g).item<double>());
}

// NaN where G is not positive definite.
Tensor EckartCoordinates::computeLogDet(const Tensor& x) const {
    const Tensor g = makeG(x, reference);
    Tensor definite;
    {
        const at::NoGradGuard noGrad;
        const Tensor finite = at::isfinite(g).all(2).all(1);
        const Tensor safe = at::where(finite.reshape({-1, 1, 1}), g, at::eye(3, g.options()));
        // G is symmetric for x of the frame.
        definite = finite & (at::linalg_eigvalsh(safe).select(1, 0) > 0);
    }
    const Tensor safe = at::where(definite.reshape({-1, 1, 1}), g, at::eye(3, g.options().requires_grad(false)));
    return whereRows(definite, at::linalg_det(safe).log() + constant, NAN);
}

TransformResult EckartCoordinates::forward(const Tensor& y) const {
    const Tensor x = reference.reshape({1, -1}) + at::matmul(y, basis.t());
    const Tensor logDet = computeLogDet(x.reshape({x.size(0), -1, 3}));
    return {whereRows(at::isfinite(logDet), x, NAN), logDet};
}

TransformResult EckartCoordinates::inverse(const Tensor& argument) const {
    const Tensor finite = at::isfinite(argument).all(1);
    const Tensor given = at::where(finite.unsqueeze(1), argument, reference.reshape({1, -1}).expand_as(argument));
    const Tensor centred = centre(given.reshape({given.size(0), -1, 3}));
    Tensor x = at::matmul(centred, superpose(centred.detach(), reference).transpose(1, 2));
    // Two Newton steps towards sum_i a_i x x_i = 0, which already holds: they give autograd the derivatives of the
    // rotation.
    if (at::GradMode::is_enabled() && x.requires_grad())
        for (int i = 0; i < 2; i++) {
            const Tensor torque = at::linalg_cross(reference.expand_as(x), x).sum(1);
            const Tensor half = crossMatrix(-0.5 * at::linalg_solve(makeG(x, reference), torque));
            const Tensor unit = at::eye(3, x.options().requires_grad(false));
            const Tensor rotation = at::matmul(at::linalg_inv(unit - half), unit + half); // Cayley
            x = at::matmul(x, rotation.transpose(1, 2));
        }
    const Tensor logDet = computeLogDet(x);
    const Tensor valid = finite & at::isfinite(logDet);
    const Tensor y = at::matmul(x.reshape({x.size(0), -1}) - reference.reshape({1, -1}), basis);
    return {whereRows(valid, y, 0.0), whereRows(valid, -logDet, -std::numeric_limits<double>::infinity())};
}

Tensor EckartCoordinates::place(const Tensor& x, const Tensor& onto) const {
    const Tensor atoms = centre(x.reshape({x.size(0), -1, 3})), target = onto.reshape({onto.size(0), -1, 3});
    const Tensor there = superpose(atoms, reference), back = superpose(centre(target), reference).transpose(1, 2);
    const Tensor rotation = at::matmul(back, there);
    return (at::matmul(atoms, rotation.transpose(1, 2)) + target.mean(1, true)).reshape(x.sizes());
}

nlohmann::json EckartCoordinates::getArchitecture() const {
    return {{"type", getTypeName()}, {"reference", toVector(reference)}};
}

std::shared_ptr<EckartCoordinates> EckartCoordinates::fromArchitecture(const nlohmann::json& architecture) {
    const auto values = architecture.at("reference").get<std::vector<double>>();
    const Tensor reference = at::tensor(values, at::kDouble);
    auto chart = std::make_shared<EckartCoordinates>(reference);
    chart->reference = reference.reshape({-1, 3}); // bit for bit: it was centred before
    chart->constant = chart->computeConstant();
    return chart;
}
