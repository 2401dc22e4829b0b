#ifndef OPENMMFLOW_ENERGIES_THREADCREW_H_
#define OPENMMFLOW_ENERGIES_THREADCREW_H_
// SPDX-License-Identifier: MIT

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace OpenMMFlow {

/**
 * Threads that sleep until there is work, and then help the thread that brings it.
 *
 * Work is a function of the member's number, to be called by as many members as come in time; it shares out its pieces
 * itself. So nobody waits for a thread to wake up: small work is done before the others arrive.
 */
class ThreadCrew {
public:
    /** @param size  members, the caller of run() included */
    explicit ThreadCrew(int size) {
        for (int member = 1; member < size; member++)
            threads.emplace_back([this, member] { serve(member); });
    }
    ThreadCrew(const ThreadCrew&) = delete;
    ThreadCrew& operator=(const ThreadCrew&) = delete;
    ~ThreadCrew() {
        {
            const std::lock_guard lock(mutex);
            stopping = true;
        }
        wake.notify_all();
        for (auto& thread : threads)
            thread.join();
    }
    /**
     * Call work(0) here, and meanwhile work(1) ... work(members-1) in the threads that wake before it ends. Returns
     * when every call has ended. One run at a time; work must not throw.
     */
    void run(int members, const std::function<void(int)>& work) {
        if (members == 1)
            return work(0);
        {
            const std::lock_guard lock(mutex);
            current = &work;
            invited = members;
            round++;
        }
        wake.notify_all();
        work(0);
        std::unique_lock lock(mutex);
        current = nullptr;
        idle.wait(lock, [this] { return busy == 0; });
    }

private:
    void serve(int member) {
        std::unique_lock lock(mutex);
        for (std::uint64_t done = 0;;) {
            wake.wait(lock, [&] { return stopping || (current != nullptr && member < invited && done != round); });
            if (stopping)
                return;
            done = round;
            const auto& work = *current;
            busy++;
            lock.unlock();
            work(member);
            lock.lock();
            if (--busy == 0)
                idle.notify_one();
        }
    }
    std::vector<std::thread> threads;
    std::mutex mutex;
    std::condition_variable wake, idle;
    const std::function<void(int)>* current = nullptr;
    int invited = 0, busy = 0;
    std::uint64_t round = 0;
    bool stopping = false;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_THREADCREW_H_*/
