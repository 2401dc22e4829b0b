#ifndef OPENMMFLOW_SAMPLERS_WEIGHTTOOLS_H_
#define OPENMMFLOW_SAMPLERS_WEIGHTTOOLS_H_
// SPDX-License-Identifier: MIT

#include "../latent/TensorTools.h"
#include "openmmflow/latent/Random.h"
#include "openmmflow/samplers/Acceptance.h"
#include <ATen/ATen.h>

namespace OpenMMFlow {

inline at::Tensor finiteOrMinusInfinity(const at::Tensor& value) {
    return at::where(value.isfinite(), value, at::full_like(value, -INFINITY));
}

/** Standard normal numbers, drawn on the processor, for each element of a matrix, on its device. */
inline at::Tensor normalLike(const at::Tensor& x, Random& random) {
    return random.normal(x.size(0), x.size(1)).to(x.device());
}

/** Metropolis' test of every walker. @param logAlpha  float64 [batch]  @return bool [batch] */
inline at::Tensor metropolis(const at::Tensor& logAlpha, Random& random) {
    const std::int64_t batch = logAlpha.size(0);
    const at::Tensor uniform = random.uniform(batch, 1), ratio = logAlpha.to(at::kCPU).contiguous();
    at::Tensor accepted = at::empty({batch}, at::kBool);
    for (std::int64_t row = 0; row < batch; row++)
        accepted.data_ptr<bool>()[row] = accept(AcceptanceTest::Metropolis, ratio.const_data_ptr<double>()[row],
                                                uniform.const_data_ptr<double>()[row]);
    return accepted.to(logAlpha.device());
}

/** ln mean exp over the last dimension; -inf where all are. */
inline at::Tensor logMeanExp(const at::Tensor& logWeight) {
    return finiteOrMinusInfinity(logWeight.logsumexp(-1) - std::log(static_cast<double>(logWeight.size(-1))));
}

/**
 * The effective part of the weights in each row, (sum w)^2 / (N sum w^2); 0 where all are zero.
 *
 * @param logWeight  [..., N]
 */
inline at::Tensor essFraction(const at::Tensor& logWeight) {
    const at::Tensor log = 2 * logWeight.logsumexp(-1) - (2 * logWeight).logsumexp(-1);
    return finiteOrMinusInfinity(log).exp() / static_cast<double>(logWeight.size(-1));
}

/**
 * The conditional effective sample size of increments v of weights w (Zhou, Johansen and Aston 2016) as a fraction,
 * (sum w v)^2 / (sum w sum w v^2), in each row; 0 where nothing is left.
 */
inline at::Tensor cessFraction(const at::Tensor& logWeight, const at::Tensor& increment) {
    const at::Tensor log =
        2 * (logWeight + increment).logsumexp(-1) - (logWeight + 2 * increment).logsumexp(-1) - logWeight.logsumexp(-1);
    return finiteOrMinusInfinity(log).exp();
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_WEIGHTTOOLS_H_*/
