// SPDX-License-Identifier: MIT

#include "openmmflow/estimators/TimeSeries.h"
#include "openmmflow/latent/Check.h"
#include <algorithm>
#include <cmath>
#include <numeric>

using namespace OpenMMFlow;
using std::vector;

namespace {

// A negative correlation this early may be an oscillation rather than noise.
constexpr std::size_t shortestSum = 3;
// S of the Gamma method's window.
constexpr double windowFactor = 1.5;
constexpr int fewestIndependent = 10;

double mean(const double* begin, const double* end) {
    return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
}

double mean(const vector<double>& values) {
    return mean(values.data(), values.data() + values.size());
}

// sum of (x - mean)^2
double sumSquares(const vector<double>& values) {
    const double center = mean(values);
    return std::accumulate(values.begin(), values.end(), 0.0,
                           [center](double sum, double x) { return sum + (x - center) * (x - center); });
}

void checkSeries(const vector<double>& series, const char* where) {
    require(series.size() >= 2, where, "number of values", series.size(), "at least 2");
    for (double x : series)
        require(std::isfinite(x), where, "a value", x, "finite");
    const auto [smallest, largest] = std::minmax_element(series.begin(), series.end());
    require(*smallest < *largest, where, "each of the values", *largest, "different from some other");
}

/** C(t) of a series. */
class Autocorrelation {
public:
    explicit Autocorrelation(const vector<double>& series)
        : deviation(series.size()), variance(sumSquares(series) / static_cast<double>(series.size())) {
        const double center = mean(series);
        std::transform(series.begin(), series.end(), deviation.begin(), [center](double x) { return x - center; });
    }
    [[nodiscard]] double at(std::size_t lag) const {
        const auto shift = static_cast<std::ptrdiff_t>(lag);
        const double product =
            std::inner_product(deviation.begin(), deviation.end() - shift, deviation.begin() + shift, 0.0);
        return product / (static_cast<double>(deviation.size() - lag) * variance);
    }

private:
    vector<double> deviation;
    double variance;
};

} // namespace

double OpenMMFlow::statisticalInefficiency(const vector<double>& series) {
    checkSeries(series, "statisticalInefficiency");
    const Autocorrelation correlation(series);
    const double count = static_cast<double>(series.size());
    double g = 1;
    for (std::size_t lag = 1; lag + 1 < series.size(); lag++) {
        const double value = correlation.at(lag);
        if (value <= 0 && lag > shortestSum)
            break;
        g += 2 * value * (count - static_cast<double>(lag)) / count;
    }
    return std::max(g, 1.0);
}

AutocorrelationTime OpenMMFlow::autocorrelationTime(const vector<double>& series) {
    const char* where = "autocorrelationTime";
    require(series.size() >= 4, where, "number of values", series.size(), "at least 4");
    checkSeries(series, where);
    const Autocorrelation correlation(series);
    const double count = static_cast<double>(series.size());
    double tau = 0.5, width = 0;
    for (bool inside = true; inside && width < count / 2;) {
        width++;
        tau += correlation.at(static_cast<std::size_t>(width));
        // Below 1/2 a series is anticorrelated: its sum may end at once.
        const double decay = tau > 0.5 ? windowFactor / std::log((2 * tau + 1) / (2 * tau - 1)) : 0;
        inside = decay > 0 && std::exp(-width / decay) >= decay / std::sqrt(width * count);
    }
    tau *= 1 + (2 * width + 1) / count;
    require(2 * tau * fewestIndependent <= count, where, "number of values", series.size(),
            "at least that of " + std::to_string(fewestIndependent) + " correlation times, each " +
                std::to_string(2 * tau));
    return {tau, tau * std::sqrt(4 / count * std::max(width + 0.5 - tau, 0.5)), static_cast<std::int64_t>(width)};
}

MeanResult OpenMMFlow::meanWithError(const vector<double>& series) {
    checkSeries(series, "meanWithError");
    const double count = static_cast<double>(series.size()), numEffective = count / statisticalInefficiency(series);
    const double variance = sumSquares(series) / (count - 1);
    return {mean(series), std::sqrt(variance / numEffective), numEffective, static_cast<std::int64_t>(series.size())};
}

MeanResult OpenMMFlow::blockAverage(const vector<double>& series, int numBlocks) {
    checkSeries(series, "blockAverage");
    require(numBlocks >= 2 && static_cast<std::size_t>(numBlocks) <= series.size(), "blockAverage", "numBlocks",
            numBlocks, "in [2, " + std::to_string(series.size()) + "]");
    const std::size_t length = series.size() / static_cast<std::size_t>(numBlocks);
    const vector<double> used(series.end() - static_cast<std::ptrdiff_t>(length * numBlocks), series.end());
    vector<double> blocks;
    for (const double* block = used.data(); block != used.data() + used.size(); block += length)
        blocks.push_back(mean(block, block + length));
    checkSeries(blocks, "blockAverage");
    const double squaredError = sumSquares(blocks) / (numBlocks - 1.0) / numBlocks;
    const double variance = sumSquares(used) / (static_cast<double>(used.size()) - 1);
    return {mean(used), std::sqrt(squaredError), variance / squaredError, static_cast<std::int64_t>(used.size())};
}
