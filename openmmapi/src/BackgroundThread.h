#ifndef OPENMMFLOW_BACKGROUNDTHREAD_H_
#define OPENMMFLOW_BACKGROUNDTHREAD_H_
// SPDX-License-Identifier: MIT

#include <functional>
#include <memory>

namespace OpenMMFlow {

/**
 * A thread that does one piece of work at a time while its owner does something else. One owner, in one thread.
 *
 * The end of the program waits for the work in progress, as that uses libraries which are then taken down. A process
 * that was forked has no such thread: see isLost().
 */
class BackgroundThread {
public:
    /** Torch in the thread works with as many threads as it has here and now. Throws std::system_error if there can't
     * be another thread. */
    BackgroundThread();
    /** Waits for the work in progress. */
    ~BackgroundThread();
    BackgroundThread(const BackgroundThread&) = delete;
    BackgroundThread& operator=(const BackgroundThread&) = delete;
    /** Begin some work. isBusy() must be false, and the work must not throw. */
    void start(std::function<void()> work);
    [[nodiscard]] bool isBusy() const;
    /** Wait until isBusy() is false. */
    void wait() const;
    /** Whether this is a copy in a forked process, where nothing works and nothing but the destructor may be called. */
    [[nodiscard]] bool isLost() const;

private:
    struct Worker;
    std::unique_ptr<Worker> worker;
    long process;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_BACKGROUNDTHREAD_H_*/
