#ifndef OPENMMFLOW_LATENT_RANDOM_H_
#define OPENMMFLOW_LATENT_RANDOM_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <array>
#include <cstdint>

namespace at {
class Tensor;
}

namespace OpenMMFlow {

/**
 * A counter-based random number generator: Philox4x32-10 (Salmon et al., SC11, 2011).
 *
 * The n-th number of a (seed, stream) pair is a pure function of the three, so a generator is saved by three integers,
 * streams are independent by construction, and nothing is shared between objects or threads.
 */
class OPENMMFLOW_EXPORT Random {
public:
    /**
     * @param seed    any value, except that 0 chooses one from the operating system's entropy, as OpenMM does
     * @param stream  an independent sequence of the same seed
     */
    explicit Random(std::uint64_t seed = 0, std::uint64_t stream = 0);
    /** What has to be saved to continue the sequence exactly. */
    struct State {
        std::uint64_t seed, stream, position;
    };
    [[nodiscard]] State getState() const;
    void setState(const State& state);
    /** The seed in use; never 0. */
    [[nodiscard]] std::uint64_t getSeed() const { return seed; }
    /** A number in the open interval (0, 1), with 52 random bits. */
    double uniform();
    /** A standard normal number (Box-Muller, two uniforms each). */
    double normal();
    /** An integer in [0, n). @param n  at least 1 */
    std::int64_t integer(std::int64_t n);
    /** Independent standard normal numbers. @return float64 [rows, columns] */
    at::Tensor normal(std::int64_t rows, std::int64_t columns);
    /** Independent numbers in (0, 1). @return float64 [rows, columns] */
    at::Tensor uniform(std::int64_t rows, std::int64_t columns);
    /** A random permutation of 0..n-1 (Fisher-Yates). @return int64 [n] */
    at::Tensor permutation(std::int64_t n);

private:
    std::uint64_t bits64();
    std::uint64_t seed, stream, position = 0;
    std::array<std::uint32_t, 4> block{};
    std::uint64_t blockIndex = ~std::uint64_t{0};
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_LATENT_RANDOM_H_*/
