#ifndef OPENMMFLOW_FLOWS_SPLINEBLOCK_H_
#define OPENMMFLOW_FLOWS_SPLINEBLOCK_H_
// SPDX-License-Identifier: MIT

#include "SplineKernel.h"
#include <vector>

namespace OpenMMFlow {

/** The splines of a layer: which columns of y they change, and how. */
struct SplineSettings {
    std::int64_t size;          // columns of y
    std::vector<int> active;    // those that are changed
    std::vector<char> circular; // [active]
    int bins;
    double bound;
    bool inverse;
    bool dense = false; // see SplineColumns

    [[nodiscard]] int countNumbers(std::size_t i) const { return countSplineNumbers(bins, circular[i] != 0, dense); }
    /** Raw numbers of all active columns, one after the other. */
    [[nodiscard]] std::int64_t countRaw() const {
        std::int64_t count = 0;
        for (std::size_t i = 0; i < active.size(); i++)
            count += countNumbers(i);
        return count;
    }
    [[nodiscard]] std::int64_t countRecords() const {
        return static_cast<std::int64_t>(active.size()) * countSplineRecords(bins);
    }
};

/** Some rows of a batch, a block, whose numbers of type T have the rows as columns. */
struct BlockShape {
    std::int64_t rows, points, stride; // points: rows, made a multiple of splineLanes; from one line to the next
};

/**
 * @param y        [rows, size]
 * @param raw      [raw, stride]
 * @param bias     [raw]
 * @param value    [rows, size], whose active columns are filled
 * @param logDet   [rows], filled
 * @param records  [active (2K + 8), stride], filled; null if there will be no pullBackSplines()
 */
template <class T>
void applySplines(const SplineSettings& settings, const BlockShape& shape, const double* y, const T* raw, const T* bias,
                  double* value, double* logDet, T* records);

/**
 * @param onValue   [rows, size]
 * @param onLogDet  [rows]
 * @param onY       [rows, size], whose active columns are filled; null if they are not wanted
 * @param onRaw     [raw, stride], filled
 */
template <class T>
void pullBackSplines(const SplineSettings& settings, const BlockShape& shape, const T* records, const double* onValue,
                     const double* onLogDet, double* onY, T* onRaw);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SPLINEBLOCK_H_*/
