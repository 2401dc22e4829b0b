#ifndef OPENMMFLOW_SAMPLERS_LAMBDASPACING_H_
#define OPENMMFLOW_SAMPLERS_LAMBDASPACING_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedSampler.h"

namespace OpenMMFlow {

/** lambda_k = (k/K)^power: power > 1 puts more stages near 0. @param numStages  K, at least 1  @param power  > 0 */
OPENMMFLOW_EXPORT std::vector<double> powerLambdas(int numStages, double power);

/**
 * The conditional effective sample size of a step to another lambda as a fraction (Zhou, Johansen and Aston, J. Comput.
 * Graph. Stat. 25, 701, 2016): (sum W v)^2 / sum W v^2, v = pi_lambda/pi of the state, W the normalised weights.
 *
 * @param logWeight  [batch]; undefined when all weigh the same
 */
OPENMMFLOW_EXPORT double conditionalEss(AnnealedPath& path, const PathState& state, double lambda,
                                        const at::Tensor& logWeight = {});

/**
 * The lambda at which conditionalEss falls to a target, by bisection to within a twentieth of 1 - target; 1 if it does
 * not fall that far. Each trial costs what AnnealedPath::atLambda does: nothing on a geometric path.
 *
 * @param target  in (0, 1)
 */
OPENMMFLOW_EXPORT double nextLambda(AnnealedPath& path, const PathState& state, double target,
                                    const at::Tensor& logWeight = {});

/**
 * Stages at equal conditional effective sample sizes, from a pilot run of any engine. Steps add up in sqrt(-ln cess),
 * which for small ones is the standard deviation of log v: the thermodynamic length. Between the pilot's stages it is
 * taken to grow linearly with lambda.
 *
 * @param pilot      with a cess > 0 for each step
 * @param numStages  K of the result, at least 1
 */
OPENMMFLOW_EXPORT std::vector<double> equalCessLambdas(const AnnealedResult& pilot, int numStages);

/** Throw unless lambdas are 0 = lambda_0 < ... < lambda_K = 1. @param where  "Class::method" */
OPENMMFLOW_EXPORT void requireLambdas(const char* where, const std::vector<double>& lambdas);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_LAMBDASPACING_H_*/
