// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Random.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <random>

using namespace OpenMMFlow;

namespace {

// One block of Philox4x32-10: four 32-bit numbers from a 128-bit counter and a 64-bit key (Salmon et al. 2011, section
// 3).
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < 10; round++) {
        const std::uint64_t product0 = std::uint64_t{0xD2511F53} * counter[0];
        const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * counter[2];
        counter = {
            static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
            static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
        key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
    }
    return counter;
}

std::uint64_t chooseSeed() {
    std::random_device entropy;
    std::uint64_t seed = 0;
    while (seed == 0)
        seed = (std::uint64_t{entropy()} << 32) | entropy();
    return seed;
}

} // namespace

Random::Random(std::uint64_t seed, std::uint64_t stream) : seed(seed == 0 ? chooseSeed() : seed), stream(stream) {}

Random::State Random::getState() const {
    return {seed, stream, position};
}

void Random::setState(const State& state) {
    require(state.seed != 0, "Random::setState", "seed", state.seed, "not 0");
    seed = state.seed;
    stream = state.stream;
    position = state.position;
    blockIndex = ~std::uint64_t{0};
}

// Each block of four 32-bit words serves two 64-bit draws.
std::uint64_t Random::bits64() {
    const std::uint64_t wanted = position / 2;
    if (wanted != blockIndex) {
        block = philox({static_cast<std::uint32_t>(wanted), static_cast<std::uint32_t>(wanted >> 32),
                        static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                       {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
        blockIndex = wanted;
    }
    const int half = 2 * static_cast<int>(position++ % 2);
    return (std::uint64_t{block[half]} << 32) | block[half + 1];
}

double Random::uniform() {
    // The midpoints of 2^52 cells: never 0 or 1.
    return (static_cast<double>(bits64() >> 12) + 0.5) * 0x1p-52;
}

double Random::normal() {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(2.0 * M_PI * uniform());
}

std::int64_t Random::integer(std::int64_t n) {
    require(n >= 1, "Random::integer", "n", n, "at least 1");
    // Multiply-shift; the bias is below n / 2^64.
    return static_cast<std::int64_t>((static_cast<unsigned __int128>(bits64()) * static_cast<std::uint64_t>(n)) >> 64);
}

at::Tensor Random::normal(std::int64_t rows, std::int64_t columns) {
    at::Tensor result = at::empty({rows, columns}, at::kDouble);
    double* data = result.data_ptr<double>();
    for (std::int64_t i = 0; i < rows * columns; i++)
        data[i] = normal();
    return result;
}

at::Tensor Random::uniform(std::int64_t rows, std::int64_t columns) {
    at::Tensor result = at::empty({rows, columns}, at::kDouble);
    double* data = result.data_ptr<double>();
    for (std::int64_t i = 0; i < rows * columns; i++)
        data[i] = uniform();
    return result;
}

at::Tensor Random::permutation(std::int64_t n) {
    require(n >= 0, "Random::permutation", "n", n, "at least 0");
    at::Tensor result = at::arange(n, at::kLong);
    auto* data = result.data_ptr<std::int64_t>();
    for (std::int64_t i = n - 1; i > 0; i--)
        std::swap(data[i], data[integer(i + 1)]);
    return result;
}
