#ifndef OPENMMFLOW_FLOWS_ASSIGNMENT_H_
#define OPENMMFLOW_FLOWS_ASSIGNMENT_H_
// SPDX-License-Identifier: MIT

#include <cstdint>
#include <vector>

namespace OpenMMFlow {

/**
 * Linear assignment: give each row of a square matrix a column of its own, at least total cost. Cubic in n. Source:
 * Jonker and Volgenant, Computing 38, 325 (1987).
 *
 * @param cost  finite, [n, n] by rows
 * @return the column of each row
 */
std::vector<std::int64_t> assignLeastCost(const double* cost, std::int64_t n);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_ASSIGNMENT_H_*/
