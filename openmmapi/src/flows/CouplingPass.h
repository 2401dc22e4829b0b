#ifndef OPENMMFLOW_FLOWS_COUPLINGPASS_H_
#define OPENMMFLOW_FLOWS_COUPLINGPASS_H_
// SPDX-License-Identifier: MIT

#include "NetworkPass.h"
#include "openmmflow/flows/Coupling.h"
#include <array>

namespace OpenMMFlow {

/** The outputs of the network that one active variable of one sample reads, and its derivatives by them. */
template <class T>
class PointOutputs {
public:
    PointOutputs(const NetworkPass<T>& network, int most)
        : network(&network), numbers(3 * most), values(numbers.data()), onValue(values + most),
          onLogDet(onValue + most) {}
    PointOutputs(PointOutputs&&) noexcept = default; // the pointers are those of the same numbers
    PointOutputs& operator=(PointOutputs&&) noexcept = default;
    void start(std::int64_t newRow) {
        row = newRow;
        size = numRanges = 0;
    }
    /** Read outputs first .. first + count - 1. @return where they are in values, onValue and onLogDet */
    int read(int first, int count) {
        network->readOutputs(row, first, count, values + size);
        ranges.at(numRanges++) = {first, count};
        size += count;
        return size - count;
    }
    /** Add the pull-backs of value and of logDet to the last hidden layer, [hidden size] each. */
    void pullBack(T* valueOnHidden, T* logDetOnHidden) const {
        int offset = 0;
        for (int i = 0; i < numRanges; i++) {
            network->pullBackOutputs(ranges[i].first, ranges[i].second, onValue + offset, onLogDet + offset,
                                     valueOnHidden, logDetOnHidden);
            offset += ranges[i].second;
        }
    }

private:
    const NetworkPass<T>* network;
    std::array<std::pair<int, int>, 4> ranges;
    std::int64_t row = 0;
    int size = 0, numRanges = 0;
    std::vector<T> numbers;

public:
    T* values;
    /** Derivatives of value and logDet by these outputs, for the map to fill in. */
    T *onValue, *onLogDet;
};

/** Where one active variable goes: value and logDet, with derivatives by the variable itself. */
struct PointResult {
    double value, logDet, valueByX, logDetByX;
};

/** An active variable of one sample. */
template <class T>
struct Point {
    int variable; // position among the active ones
    double x;
    PointOutputs<T> outputs;
    PointResult result;
};

/** The map of each active variable of a coupling, in one direction. */
template <class T>
class PointMap {
public:
    virtual ~PointMap() = default;
    /** The most outputs of the network that a variable reads. */
    [[nodiscard]] virtual int countOutputs() const = 0;
    /** How many points are evaluated at once. */
    [[nodiscard]] virtual int countPoints() const { return 1; }
    /**
     * Fill in results.
     *
     * @param points         up to countPoints()
     * @param differentiate  whether derivatives are wanted; if not, those of results and outputs may be left open
     */
    virtual void evaluate(std::vector<Point<T>>& points, bool differentiate) = 0;
};

/**
 * A coupling of few rows without tensors. With derivatives, the network's last layer, by far its largest, is read only
 * once: as soon as the outputs of a variable are known, so are the derivatives of its value v_i and of logDet by them,
 * and their products with these rows of the weights, P_i = W_i^T dv_i/draw_i and B = sum_i W_i^T dlogDet/draw_i. The
 * pull-back to the hidden layer is then B + sum_i P_i onValue_i.
 *
 * @param y  float64 [batch, size], contiguous
 * @return pullBack is empty unless `differentiate`
 */
template <class T>
PulledResult runCoupling(const Conditioner& conditioner, const Split& split, PointMap<T>& map, const at::Tensor& y,
                         bool differentiate);

/** runCoupling with the dtype of the network. @param makeMap  PointMap<T> makeMap(T()) */
template <class MakeMap>
PulledResult runCouplingOfAnyType(const Conditioner& conditioner, const Split& split, const MakeMap& makeMap,
                                  const at::Tensor& y, bool differentiate) {
    const auto run = [&]<class T>(T type) {
        auto map = makeMap(type);
        return runCoupling<T>(conditioner, split, map, y, differentiate);
    };
    return conditioner.getWeights()[0].scalar_type() == at::kFloat ? run(float{}) : run(double{});
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_COUPLINGPASS_H_*/
