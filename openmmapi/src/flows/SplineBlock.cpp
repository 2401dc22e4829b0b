// SPDX-License-Identifier: MIT

#include "SplineBlock.h"
#include <algorithm>
#include <numbers>

using namespace OpenMMFlow;

namespace {

/** One column of a block after the other, as the kernels have them. */
class Columns {
public:
    Columns(const SplineSettings& settings, const BlockShape& shape)
        : settings(settings), shape(shape), argument(shape.points), result(shape.points) {}
    void gather(const double* from, std::size_t i) {
        for (std::int64_t row = 0; row < shape.rows; row++)
            argument[row] = from[row * settings.size + settings.active[i]];
    }
    void scatter(double* to, std::size_t i) const {
        for (std::int64_t row = 0; row < shape.rows; row++)
            to[row * settings.size + settings.active[i]] = result[row];
    }
    [[nodiscard]] SplineColumns describe(std::size_t i) const {
        const bool circular = settings.circular[i] != 0;
        return {settings.bins, circular,     settings.inverse, circular ? std::numbers::pi : settings.bound,
                shape.points,  shape.stride, settings.dense};
    }

private:
    const SplineSettings& settings;
    const BlockShape& shape;

public:
    std::vector<double> argument, result; // [points]
};

} // namespace

template <class T>
void OpenMMFlow::applySplines(const SplineSettings& settings, const BlockShape& shape, const double* y, const T* raw,
                              const T* bias, double* value, double* logDet, T* records) {
    Columns columns(settings, shape);
    std::vector<double> sum(shape.points);
    const int numRecords = countSplineRecords(settings.bins);
    for (std::size_t i = 0; i < settings.active.size(); i++) {
        columns.gather(y, i);
        getSplineKernels<T>().apply(columns.describe(i), columns.argument.data(), raw, bias, columns.result.data(),
                                    sum.data(), records == nullptr ? nullptr : records + i * numRecords * shape.stride);
        columns.scatter(value, i);
        raw += settings.countNumbers(i) * shape.stride;
        bias += settings.countNumbers(i);
    }
    std::copy_n(sum.begin(), shape.rows, logDet);
}

template <class T>
void OpenMMFlow::pullBackSplines(const SplineSettings& settings, const BlockShape& shape, const T* records,
                                 const double* onValue, const double* onLogDet, double* onY, T* onRaw) {
    Columns columns(settings, shape);
    std::vector<double> onSum(shape.points);
    std::copy_n(onLogDet, shape.rows, onSum.begin());
    const int numRecords = countSplineRecords(settings.bins);
    for (std::size_t i = 0; i < settings.active.size(); i++) {
        columns.gather(onValue, i);
        getSplineKernels<T>().pullBack(columns.describe(i), records + i * numRecords * shape.stride,
                                       columns.argument.data(), onSum.data(), columns.result.data(), onRaw);
        if (onY != nullptr)
            columns.scatter(onY, i);
        onRaw += settings.countNumbers(i) * shape.stride;
    }
}

template void OpenMMFlow::applySplines<float>(const SplineSettings&, const BlockShape&, const double*, const float*,
                                              const float*, double*, double*, float*);
template void OpenMMFlow::applySplines<double>(const SplineSettings&, const BlockShape&, const double*, const double*,
                                               const double*, double*, double*, double*);
template void OpenMMFlow::pullBackSplines<float>(const SplineSettings&, const BlockShape&, const float*, const double*,
                                                 const double*, double*, float*);
template void OpenMMFlow::pullBackSplines<double>(const SplineSettings&, const BlockShape&, const double*,
                                                  const double*, const double*, double*, double*);
