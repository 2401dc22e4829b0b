// SPDX-License-Identifier: MIT

#include "CouplingPass.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

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
        Tensor result = on.clone();
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
PulledResult OpenMMFlow::runCoupling(const Conditioner& conditioner, const Split& split, const PointMap<T>& map,
                                     const Tensor& y, bool differentiate) {
    const auto tape = std::make_shared<Tape<T>>(conditioner, split, y);
    if (differentiate)
        tape->keepDerivatives();
    const at::NoGradGuard noGrad;
    const std::int64_t rows = y.size(0), size = y.size(1);
    const auto count = static_cast<std::int64_t>(tape->active.size());
    const int hidden = tape->network.getHiddenSize();
    Tensor value = y.detach().clone(), logDet = at::zeros({rows}, at::kDouble);
    const double* from = y.const_data_ptr<double>();
    double *to = value.mutable_data_ptr<double>(), *sum = logDet.mutable_data_ptr<double>();
    PointOutputs<T> outputs(tape->network, map.countOutputs());
    // Variable by variable, so that their weights stay in the cache for all rows.
    for (std::int64_t i = 0; i < count; i++)
        for (std::int64_t row = 0; row < rows; row++) {
            outputs.start(row);
            const std::int64_t place = row * size + tape->active[i];
            const PointResult point = map.evaluate(static_cast<int>(i), from[place], outputs, differentiate);
            to[place] = point.value;
            sum[row] += point.logDet;
            if (!differentiate)
                continue;
            tape->valueByX[row * count + i] = point.valueByX;
            tape->logDetByX[row * count + i] = point.logDetByX;
            outputs.pullBack(tape->valueOnHidden.data() + (row * count + i) * hidden,
                             tape->logDetOnHidden.data() + row * hidden);
        }
    PulledResult result{{value, logDet}, {}};
    if (differentiate)
        result.pullBack = [tape](const Tensor& onValue) { return tape->pullBack(onValue); };
    return result;
}

template PulledResult OpenMMFlow::runCoupling<float>(const Conditioner&, const Split&, const PointMap<float>&,
                                                     const Tensor&, bool);
template PulledResult OpenMMFlow::runCoupling<double>(const Conditioner&, const Split&, const PointMap<double>&,
                                                      const Tensor&, bool);
