// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>
#include <cmath>
#include <gtest/gtest.h>
#include <set>

using namespace OpenMMFlow;

TEST(Random, ContinuesFromASavedState) {
    Random first(7, 3), second(1);
    for (int i = 0; i < 5; i++)
        first.uniform();
    second.setState(first.getState());
    for (int i = 0; i < 10; i++)
        EXPECT_EQ(first.uniform(), second.uniform());
}

// Known answer of Philox4x32-10 for counter 0 and key 0 (Random123's kat_vectors): 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
// A seed of 0 chooses one, so that the vector with key and counter of ones, ffffffff..., is the one within reach.
TEST(Random, IsPhilox) {
    Random random(0xffffffffffffffffULL, 0xffffffffffffffffULL);
    random.setState({0xffffffffffffffffULL, 0xffffffffffffffffULL, 0});
    // Counter words 0 and 1 are the block index, 0 here; the independent implementation below has the same counter.
    std::uint32_t c[4] = {0, 0, 0xffffffff, 0xffffffff}, k[2] = {0xffffffff, 0xffffffff};
    for (int round = 0; round < 10; round++) {
        const std::uint64_t a = 0xD2511F53ULL * c[0], b = 0xCD9E8D57ULL * c[2];
        const std::uint32_t next[4] = {std::uint32_t(b >> 32) ^ c[1] ^ k[0], std::uint32_t(b),
                                       std::uint32_t(a >> 32) ^ c[3] ^ k[1], std::uint32_t(a)};
        std::copy(next, next + 4, c);
        k[0] += 0x9E3779B9;
        k[1] += 0xBB67AE85;
    }
    const std::uint64_t bits = (std::uint64_t{c[0]} << 32) | c[1];
    EXPECT_EQ(random.uniform(), (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52);
}

TEST(Random, StreamsDiffer) {
    Random first(5, 0), second(5, 1);
    std::set<double> numbers;
    for (int i = 0; i < 100; i++) {
        numbers.insert(first.uniform());
        numbers.insert(second.uniform());
    }
    EXPECT_EQ(numbers.size(), 200u);
}

TEST(Random, ZeroSeedChoosesOne) {
    EXPECT_NE(Random(0).getSeed(), Random(0).getSeed());
    EXPECT_NE(Random(0).getSeed(), 0u);
}

TEST(Random, NormalHasTheMomentsOfANormal) {
    constexpr int n = 200000;
    Random random(11);
    const at::Tensor x = random.normal(n, 1);
    EXPECT_NEAR(x.mean().item<double>(), 0.0, 4 / std::sqrt(n));
    EXPECT_NEAR(x.square().mean().item<double>(), 1.0, 4 * std::sqrt(2.0 / n));
    EXPECT_NEAR(x.pow(3).mean().item<double>(), 0.0, 4 * std::sqrt(15.0 / n));
    EXPECT_NEAR(x.pow(4).mean().item<double>(), 3.0, 4 * std::sqrt(96.0 / n));
}

TEST(Random, IntegersAndPermutationsAreUniform) {
    constexpr int n = 60000;
    Random random(3);
    std::vector<int> count(6), first(6);
    for (int i = 0; i < n; i++) {
        count[random.integer(6)]++;
        if (i % 10 == 0)
            first[random.permutation(6)[0].item<std::int64_t>()]++;
    }
    for (int k = 0; k < 6; k++) {
        EXPECT_NEAR(count[k], n / 6.0, 4 * std::sqrt(n * 5.0 / 36.0));
        EXPECT_NEAR(first[k], n / 60.0, 4 * std::sqrt(n / 10 * 5.0 / 36.0));
    }
}
