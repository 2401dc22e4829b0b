// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Coupling.h"
#include "../latent/TensorTools.h"
#include "CouplingPass.h"
#include "SplineLayer.h"
#include "openmmflow/flows/RationalQuadraticSpline.h"
#include "openmmflow/latent/Check.h"
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

std::vector<int> findPositions(const std::vector<int>& list, const std::vector<int>& variables) {
    std::vector<int> positions;
    for (std::size_t i = 0; i < list.size(); i++)
        if (std::find(variables.begin(), variables.end(), list[i]) != variables.end())
            positions.push_back(static_cast<int>(i));
    return positions;
}

/** x = z + t or, inverse, z = x - t. */
template <class T>
struct AdditiveMap : PointMap<T> {
    bool inverse;
    explicit AdditiveMap(bool inverse) : inverse(inverse) {}
    [[nodiscard]] int countOutputs() const override { return 1; }
    void evaluate(std::vector<Point<T>>& points, bool differentiate) override {
        for (auto& [variable, x, outputs, result] : points) {
            outputs.read(variable, 1);
            const double sign = inverse ? -1 : 1;
            outputs.onValue[0] = static_cast<T>(sign);
            outputs.onLogDet[0] = 0;
            result = {x + sign * static_cast<double>(outputs.values[0]), 0, 1, 0};
        }
    }
};

/** x = z exp(s) + t or, inverse, z = (x - t) exp(-s), with s = bound tanh(raw/bound); outputs are all raw, all t. */
template <class T>
struct AffineMap : PointMap<T> {
    int count;
    double bound;
    bool inverse;
    AffineMap(std::size_t count, double bound, bool inverse)
        : count(static_cast<int>(count)), bound(bound), inverse(inverse) {}
    [[nodiscard]] int countOutputs() const override { return 2; }
    void evaluate(std::vector<Point<T>>& points, bool differentiate) override {
        for (auto& [variable, x, outputs, result] : points) {
            outputs.read(variable, 1);
            outputs.read(count + variable, 1);
            const double unit = std::tanh(static_cast<double>(outputs.values[0]) / bound), t = outputs.values[1];
            const double logScale = inverse ? -bound * unit : bound * unit, scale = std::exp(logScale);
            const double byRaw = (inverse ? -1 : 1) * (1 - unit * unit); // of logScale
            const double argument = inverse ? x - t : x;
            outputs.onValue[0] = static_cast<T>(argument * scale * byRaw);
            outputs.onValue[1] = static_cast<T>(inverse ? -scale : 1);
            outputs.onLogDet[0] = static_cast<T>(byRaw);
            outputs.onLogDet[1] = 0;
            result = {inverse ? argument * scale : argument * scale + t, logScale, scale, 0};
        }
    }
};

/**
 * RationalQuadraticSpline.h, reading of the slopes only those of the bin, and outside of an open spline nothing. The
 * points of one kind go through the kernels together.
 */
template <class T>
class SplineMap : public PointMap<T> {
public:
    SplineMap(int bins, double bound, bool inverse, const bool* circular)
        : bins(bins), bound(bound), inverse(inverse), circular(circular), noBias(numRaw()), raw(numRaw() * splineLanes),
          record(countSplineRecords(bins) * splineLanes) {}
    [[nodiscard]] int countOutputs() const override { return numRaw(); }
    [[nodiscard]] int countPoints() const override { return splineLanes; }
    void evaluate(std::vector<Point<T>>& points, bool differentiate) override {
        for (const bool turning : {false, true}) {
            numChosen = 0;
            for (Point<T>& point : points) {
                if (circular[point.variable] != turning)
                    continue;
                point.result = {point.x, 0, 1, 0};
                if (turning || std::abs(point.x) <= bound)
                    chosen[numChosen++] = &point;
            }
            if (numChosen > 0)
                evaluateChosen(turning, differentiate);
        }
    }

private:
    [[nodiscard]] int numRaw() const { return RationalQuadraticSpline::countParameters(bins); }
    void evaluateChosen(bool turning, bool differentiate) {
        const SplineColumns columns{bins, turning, inverse, turning ? M_PI : bound, splineLanes, splineLanes};
        const SplineKernels<T>& kernels = getSplineKernels<T>();
        double x[splineLanes] = {}, value[splineLanes], logDet[splineLanes] = {};
        for (int lane = 0; lane < numChosen; lane++) {
            x[lane] = chosen[lane]->x;
            read(lane, 0, 2 * bins);
            if (turning)
                read(lane, 3 * bins, 1);
        }
        kernels.findBins(columns, x, raw.data(), noBias.data(), bin);
        for (int lane = 0; lane < numChosen; lane++)
            for (const int knot : {bin[lane], (bin[lane] + 1) % bins})
                read(lane, 2 * bins + knot, 1);
        kernels.apply(columns, x, raw.data(), noBias.data(), value, logDet, differentiate ? record.data() : nullptr);
        for (int lane = 0; lane < numChosen; lane++)
            chosen[lane]->result = {value[lane], logDet[lane], 1, 0};
        if (differentiate)
            for (const bool byLogDet : {false, true})
                pullBack(columns, byLogDet);
    }
    /** Read outputs first .. first + count - 1 of a point's variable into its lane. */
    void read(int lane, int first, int count) {
        PointOutputs<T>& outputs = chosen[lane]->outputs;
        const T* from = outputs.values + outputs.read(chosen[lane]->variable * numRaw() + first, count);
        for (int k = 0; k < count; k++)
            raw[(first + k) * splineLanes + lane] = from[k];
    }
    /** The derivatives of the values, or of the log-dets; they replace raw. */
    void pullBack(const SplineColumns& columns, bool byLogDet) {
        double onValue[splineLanes], onLogDet[splineLanes], onX[splineLanes];
        std::fill_n(onValue, splineLanes, byLogDet ? 0.0 : 1.0);
        std::fill_n(onLogDet, splineLanes, byLogDet ? 1.0 : 0.0);
        getSplineKernels<T>().pullBack(columns, record.data(), onValue, onLogDet, onX, raw.data());
        for (int lane = 0; lane < numChosen; lane++) {
            Point<T>& point = *chosen[lane];
            (byLogDet ? point.result.logDetByX : point.result.valueByX) = onX[lane];
            T* to = byLogDet ? point.outputs.onLogDet : point.outputs.onValue;
            const auto put = [&](int k) { *to++ = raw[k * splineLanes + lane]; };
            for (int k = 0; k < 2 * bins; k++)
                put(k);
            if (columns.circular)
                put(3 * bins);
            for (const int knot : {bin[lane], (bin[lane] + 1) % bins})
                put(2 * bins + knot);
        }
    }
    int bins;
    double bound;
    bool inverse;
    const bool* circular;  // [active]
    std::vector<T> noBias; // the network's is in what it gives
    // Points of one kind: which, their bins, and their raw numbers and records with the points as columns. Numbers in
    // unused places are of points before.
    std::array<Point<T>*, splineLanes> chosen;
    int numChosen = 0, bin[splineLanes];
    std::vector<T> raw, record;
};

} // namespace

Split::Split(int size, std::vector<int> activeVariables) : size(size), active(std::move(activeVariables)) {
    std::vector<int> place(size, -1); // of each variable in cat(active, passive)
    for (std::size_t i = 0; i < active.size(); i++) {
        require(active[i] >= 0 && active[i] < size && place[active[i]] < 0, "Split::Split",
                "active[" + std::to_string(i) + "]", active[i], "one of 0..size-1, each at most once");
        place[active[i]] = static_cast<int>(i);
    }
    for (int i = 0; i < size; i++)
        if (place[i] < 0) {
            place[i] = static_cast<int>(active.size() + passive.size());
            passive.push_back(i);
        }
    require(!active.empty() && !passive.empty(), "Split::Split", "number of active variables", active.size(),
            "between 1 and size-1");
    activeIndex = indexTensor(active);
    passiveIndex = indexTensor(passive);
    joinIndex = indexTensor(place);
}

std::vector<int> Split::findPassive(const std::vector<int>& variables) const {
    return findPositions(passive, variables);
}

std::vector<int> Split::findActive(const std::vector<int>& variables) const {
    return findPositions(active, variables);
}

Tensor Split::takeActive(const Tensor& y) const {
    return y.index_select(1, activeIndex);
}

Tensor Split::takePassive(const Tensor& y) const {
    return y.index_select(1, passiveIndex);
}

Tensor Split::join(const Tensor& activePart, const Tensor& passivePart) const {
    return at::cat({activePart, passivePart}, 1).index_select(1, joinIndex);
}

AdditiveCoupling::AdditiveCoupling(int size, std::vector<int> active, const Conditioner::Options& options, bool odd)
    : split(size, std::move(active)),
      conditioner(Conditioner::makeForCoupling(split.getPassive(), split.getActive(), 1, options)), odd(odd) {}

Tensor AdditiveCoupling::predict(const Tensor& passivePart) const {
    const Tensor t = conditioner(passivePart).to(at::kDouble);
    return odd ? (t - conditioner(-passivePart).to(at::kDouble)) / 2 : t;
}

PulledResult AdditiveCoupling::run(const Tensor& y, bool inverse, bool differentiate) const {
    const auto makeMap = [&]<class T>(T) { return AdditiveMap<T>(inverse); };
    return runCouplingOfAnyType(conditioner, split, makeMap, y, differentiate);
}

PulledResult AdditiveCoupling::inverseWithPullBack(const Tensor& x) const {
    return !odd && suitsGradientPass(conditioner, split.getSize(), x) ? run(x.contiguous(), true, true)
                                                                      : Transform::inverseWithPullBack(x);
}

TransformResult AdditiveCoupling::forward(const Tensor& z) const {
    if (!odd && suitsPlainPass(conditioner, split.getSize(), z))
        return run(z.contiguous(), false, false).result;
    const Tensor passivePart = split.takePassive(z);
    return {split.join(split.takeActive(z) + predict(passivePart), passivePart), repeatForRows(0.0, z)};
}

TransformResult AdditiveCoupling::inverse(const Tensor& x) const {
    if (!odd && suitsPlainPass(conditioner, split.getSize(), x))
        return run(x.contiguous(), true, false).result;
    const Tensor passivePart = split.takePassive(x);
    return {split.join(split.takeActive(x) - predict(passivePart), passivePart), repeatForRows(0.0, x)};
}

std::vector<Tensor> AdditiveCoupling::getConstants() const {
    std::vector<Tensor> all = conditioner.getConstants();
    appendTo(all, split.getConstants());
    return all;
}

nlohmann::json AdditiveCoupling::getArchitecture() const {
    return {{"type", getTypeName()},
            {"size", split.getSize()},
            {"active", split.getActive()},
            {"odd", odd},
            {"conditioner", conditioner.getArchitecture()}};
}

AffineCoupling::AffineCoupling(int size, std::vector<int> active, const Conditioner::Options& options,
                               double scaleBound, bool odd)
    : split(size, std::move(active)),
      conditioner(Conditioner::makeForCoupling(split.getPassive(), split.getActive(), 2, options)),
      scaleBound(scaleBound), odd(odd) {
    require(scaleBound > 0 && std::isfinite(scaleBound), "AffineCoupling::AffineCoupling", "scaleBound", scaleBound,
            "positive and finite");
}

std::pair<Tensor, Tensor> AffineCoupling::predict(const Tensor& passivePart) const {
    const auto run = [this](const Tensor& y) { return conditioner(y).to(at::kDouble).chunk(2, 1); };
    const auto parts = run(passivePart);
    Tensor rawScale = parts[0], t = parts[1];
    if (odd) {
        // Two passes of one shape: rows of a doubled batch could differ in the last bit from their mirror images.
        const auto mirrored = run(-passivePart);
        rawScale = (rawScale + mirrored[0]) / 2;
        t = (t - mirrored[1]) / 2;
    }
    return {scaleBound * at::tanh(rawScale / scaleBound), t};
}

PulledResult AffineCoupling::run(const Tensor& y, bool inverse, bool differentiate) const {
    const auto makeMap = [&]<class T>(T) { return AffineMap<T>(split.getActive().size(), scaleBound, inverse); };
    return runCouplingOfAnyType(conditioner, split, makeMap, y, differentiate);
}

PulledResult AffineCoupling::inverseWithPullBack(const Tensor& x) const {
    return !odd && suitsGradientPass(conditioner, split.getSize(), x) ? run(x.contiguous(), true, true)
                                                                      : Transform::inverseWithPullBack(x);
}

TransformResult AffineCoupling::forward(const Tensor& z) const {
    if (!odd && suitsPlainPass(conditioner, split.getSize(), z))
        return run(z.contiguous(), false, false).result;
    const Tensor passivePart = split.takePassive(z);
    const auto [s, t] = predict(passivePart);
    return {split.join(split.takeActive(z) * s.exp() + t, passivePart), s.sum(1)};
}

TransformResult AffineCoupling::inverse(const Tensor& x) const {
    if (!odd && suitsPlainPass(conditioner, split.getSize(), x))
        return run(x.contiguous(), true, false).result;
    const Tensor passivePart = split.takePassive(x);
    const auto [s, t] = predict(passivePart);
    return {split.join((split.takeActive(x) - t) * (-s).exp(), passivePart), -s.sum(1)};
}

std::vector<Tensor> AffineCoupling::getConstants() const {
    std::vector<Tensor> all = conditioner.getConstants();
    appendTo(all, split.getConstants());
    return all;
}

nlohmann::json AffineCoupling::getArchitecture() const {
    return {{"type", getTypeName()},
            {"size", split.getSize()},
            {"active", split.getActive()},
            {"scaleBound", scaleBound},
            {"odd", odd},
            {"conditioner", conditioner.getArchitecture()}};
}

SplineCoupling::SplineCoupling(int size, std::vector<int> active, std::vector<int> circularVariables,
                               const Options& newOptions)
    : split(size, std::move(active)), circular(std::move(circularVariables)), options(newOptions),
      circularActive(at::zeros({static_cast<std::int64_t>(split.getActive().size())}, at::kBool)),
      conditioner(static_cast<int>(split.getPassive().size()), split.findPassive(circular),
                  static_cast<int>(split.getActive().size()) * RationalQuadraticSpline::countParameters(options.bins),
                  options.conditioner) {
    require(options.bins >= 2, "SplineCoupling::SplineCoupling", "bins", options.bins, "at least 2");
    require(options.bound > 0 && std::isfinite(options.bound), "SplineCoupling::SplineCoupling", "bound", options.bound,
            "positive and finite");
    for (int variable : circular)
        require(variable >= 0 && variable < size, "SplineCoupling::SplineCoupling", "a circular variable", variable,
                "one of 0..size-1");
    for (int position : split.findActive(circular))
        circularActive[position] = true;
}

TransformResult SplineCoupling::forward(const Tensor& z) const {
    return apply(z, false);
}

TransformResult SplineCoupling::inverse(const Tensor& x) const {
    return apply(x, true);
}

PulledResult SplineCoupling::run(const Tensor& y, bool inverse, bool differentiate) const {
    const auto makeMap = [&]<class T>(T) {
        return SplineMap<T>(options.bins, options.bound, inverse, circularActive.const_data_ptr<bool>());
    };
    return runCouplingOfAnyType(conditioner, split, makeMap, y, differentiate);
}

PulledResult SplineCoupling::inverseWithPullBack(const Tensor& x) const {
    return options.bins <= maxSplineBins && suitsGradientPass(conditioner, split.getSize(), x)
               ? run(x.contiguous(), true, true)
               : Transform::inverseWithPullBack(x);
}

TransformResult SplineCoupling::apply(const Tensor& y, bool inverse) const {
    if (options.bins <= maxSplineBins && suitsPlainPass(conditioner, split.getSize(), y))
        return run(y.contiguous(), inverse, false).result;
    if (options.bins <= maxSplineBins && suitsNetworkPass(conditioner, split.getSize(), y)) {
        const bool* flags = circularActive.const_data_ptr<bool>();
        const SplineSettings settings{split.getSize(), split.getActive(), {flags, flags + circularActive.size(0)},
                                      options.bins,    options.bound,     inverse};
        return applySplineLayer(conditioner, split.getPassive(), settings, y);
    }
    const Tensor passivePart = split.takePassive(y);
    const TransformResult spline = RationalQuadraticSpline::apply(split.takeActive(y), conditioner(passivePart),
                                                                  circularActive, options.bins, options.bound, inverse);
    return {split.join(spline.value, passivePart), spline.logDet};
}

std::vector<Tensor> SplineCoupling::getConstants() const {
    std::vector<Tensor> all = conditioner.getConstants();
    appendTo(all, split.getConstants());
    all.push_back(circularActive);
    return all;
}

nlohmann::json SplineCoupling::getArchitecture() const {
    return {{"type", getTypeName()},
            {"size", split.getSize()},
            {"active", split.getActive()},
            {"circular", circular},
            {"bins", options.bins},
            {"bound", options.bound},
            {"conditioner", conditioner.getArchitecture()}};
}
