#ifndef OPENMMFLOW_LATENT_THREADGUARD_H_
#define OPENMMFLOW_LATENT_THREADGUARD_H_
// SPDX-License-Identifier: MIT

#include <ATen/Parallel.h>

namespace OpenMMFlow {

/**
 * Sets torch's number of threads for as long as it lives; 0 leaves it alone.
 *
 * Beside OpenMM one is the best choice: torch's threads spin while they wait, and where they share cores with others
 * networks become many times slower.
 */
class ThreadGuard {
public:
    explicit ThreadGuard(int numThreads) : previous(at::get_num_threads()) {
        if (numThreads > 0)
            at::set_num_threads(numThreads);
    }
    ~ThreadGuard() { at::set_num_threads(previous); }
    ThreadGuard(const ThreadGuard&) = delete;
    ThreadGuard& operator=(const ThreadGuard&) = delete;

private:
    int previous;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_LATENT_THREADGUARD_H_*/
