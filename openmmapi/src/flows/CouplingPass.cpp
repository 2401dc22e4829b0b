// SPDX-License-Identifier: MIT

#include "CouplingPass.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** A copy without a graph, by one operation of torch's. @param t  float64, contiguous */
Tensor copyOf(const Tensor& t) {
    Tensor copy = at::empty(t.sizes(), at::kDouble);
    std::copy_n(t.const_data_ptr<double>(), t.numel(), copy.mutable_data_ptr<double>());
    return copy;
}

/** What runCoupling() keeps for the pull-back. */
template <class T>
struct Tape {
    NetworkPass<T> network;
    std::vector<int> active;
    std::vector<T> valueOnHidden, logDetOnHidden; // P, [rows, active, hidden]; B, [rows, hidden]
    std::vector<double> valueByX, logDetByX;      // [rows, active]

    Tape(const Conditioner& conditioner, const Split& split, const Tensor& y)
        : network(conditioner, split.getPassive(), y.const_data_ptr<double>(), y.size(0), y.size(1)),
          active(split.getActive()) {}

    void keepDerivatives() {
        const std::size_t rows = network.getNumRows(), hidden = network.getHiddenSize();
        valueOnHidden.resize(rows * active.size() * hidden);
        logDetOnHidden.resize(rows * hidden);
        valueByX.resize(rows * active.size());
        logDetByX.resize(rows * active.size());
    }

    [[nodiscard]] Tensor pullBack(const Tensor& onValue) const {
        const Tensor on = onValue.contiguous();
        Tensor result = copyOf(on);
        const std::int64_t size = on.size(1);
        const int hidden = network.getHiddenSize(), count = static_cast<int>(active.size());
        std::vector<T> onActive(count), onHidden;
        for (std::int64_t row = 0; row < network.getNumRows(); row++) {
            const double* from = on.const_data_ptr<double>() + row * size;
            double* to = result.mutable_data_ptr<double>() + row * size;
            for (int i = 0; i < count; i++) {
                const double given = from[active[i]];
                onActive[i] = static_cast<T>(given);
                to[active[i]] = given * valueByX[row * count + i] + logDetByX[row * count + i];
            }
            onHidden.assign(logDetOnHidden.begin() + row * hidden, logDetOnHidden.begin() + (row + 1) * hidden);
            getNetworkKernels<T>().pullBack(valueOnHidden.data() + row * count * hidden, onActive.data(), count, hidden,
                                            onHidden.data());
            network.pullBack(row, onHidden, to);
        }
        return result;
    }
};

} // namespace

template <class T>
PulledResult OpenMMFlow::runCoupling(const Conditioner& conditioner, const Split& split, PointMap<T>& map,
                                     const Tensor& y, bool differentiate) {
    const auto tape = std::make_shared<Tape<T>>(conditioner, split, y);
    if (differentiate)
        tape->keepDerivatives();
    const at::NoGradGuard noGrad;
    const std::int64_t rows = y.size(0), size = y.size(1);
    const auto count = static_cast<std::int64_t>(tape->active.size());
    const int hidden = tape->network.getHiddenSize();
    Tensor value = copyOf(y), logDet = at::empty({rows}, value.options());
    const double* from = y.const_data_ptr<double>();
    double *to = value.mutable_data_ptr<double>(), *sum = logDet.mutable_data_ptr<double>();
    std::fill_n(sum, rows, 0.0);
    // Variable by variable, so that their weights stay in the cache for all rows.
    std::vector<Point<T>> points;
    for (int p = 0; p < map.countPoints(); p++)
        points.push_back({0, 0, {tape->network, map.countOutputs()}, {}});
    for (std::int64_t start = 0; start < count * rows; start += map.countPoints()) {
        if (count * rows - start < map.countPoints())
            points.erase(points.begin() + (count * rows - start), points.end());
        for (std::size_t p = 0; p < points.size(); p++) {
            const std::int64_t i = (start + p) / rows, row = (start + p) % rows;
            points[p].variable = static_cast<int>(i);
            points[p].x = from[row * size + tape->active[i]];
            points[p].outputs.start(row);
        }
        map.evaluate(points, differentiate);
        for (std::size_t p = 0; p < points.size(); p++) {
            const std::int64_t i = (start + p) / rows, row = (start + p) % rows;
            const PointResult& result = points[p].result;
            to[row * size + tape->active[i]] = result.value;
            sum[row] += result.logDet;
            if (!differentiate)
                continue;
            tape->valueByX[row * count + i] = result.valueByX;
            tape->logDetByX[row * count + i] = result.logDetByX;
            points[p].outputs.pullBack(tape->valueOnHidden.data() + (row * count + i) * hidden,
                                       tape->logDetOnHidden.data() + row * hidden);
        }
    }
    PulledResult result{{value, logDet}, {}};
    if (differentiate)
        result.pullBack = [tape](const Tensor& onValue) { return tape->pullBack(onValue); };
    return result;
}

template PulledResult OpenMMFlow::runCoupling<float>(const Conditioner&, const Split&, PointMap<float>&, const Tensor&,
                                                     bool);
template PulledResult OpenMMFlow::runCoupling<double>(const Conditioner&, const Split&, PointMap<double>&,
                                                      const Tensor&, bool);
