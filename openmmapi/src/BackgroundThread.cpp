// SPDX-License-Identifier: MIT

#include "BackgroundThread.h"
#include <ATen/Parallel.h>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>
#include <unistd.h>

using namespace OpenMMFlow;

struct BackgroundThread::Worker {
    Worker() : thread([this] { serve(); }) { wait(); }
    ~Worker() { stop(); }
    void stop() {
        {
            const std::lock_guard lock(mutex);
            stopping = true;
        }
        changed.notify_all();
        if (thread.joinable())
            thread.join();
    }
    void wait() {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return !busy; });
    }
    void serve() {
        // A thread takes up torch's setting when it first asks for it, for good. Done while the constructor waits: its
        // caller may have set it for a while only.
        (void)at::get_num_threads();
        std::unique_lock lock(mutex);
        for (;;) {
            busy = false;
            changed.notify_all();
            changed.wait(lock, [this] { return stopping || busy; });
            if (stopping && !busy)
                return;
            lock.unlock();
            work();
            work = nullptr;
            lock.lock();
        }
    }
    std::mutex mutex;
    std::condition_variable changed;
    std::function<void()> work;
    bool busy = true, stopping = false; // busy until the thread is there
    std::thread thread;                 // last, as it uses the others
};

namespace {

/** Stops the threads of this process when it ends: before what was loaded ahead of the first of them is taken down. */
template <class Worker>
class WorkerRegistry {
public:
    /** Never destroyed: an owner may go after the program's end has begun. */
    static WorkerRegistry& get() {
        static WorkerRegistry& registry = *std::make_unique<WorkerRegistry>().release();
        static const int registered = std::atexit([] { registry.stopAll(); });
        (void)registered;
        return registry;
    }
    void add(Worker* worker) {
        const std::lock_guard lock(mutex);
        workers[worker] = ::getpid();
    }
    void remove(Worker* worker) {
        const std::lock_guard lock(mutex);
        workers.erase(worker);
    }

private:
    void stopAll() {
        const std::lock_guard lock(mutex);
        for (const auto& [worker, process] : workers)
            if (process == ::getpid())
                worker->stop();
    }
    std::mutex mutex;
    std::map<Worker*, pid_t> workers;
};

} // namespace

BackgroundThread::BackgroundThread() : worker(std::make_unique<Worker>()), process(::getpid()) {
    WorkerRegistry<Worker>::get().add(worker.get());
}

// A lost worker is left as it is: its mutex may be locked for ever, and there is nothing to join.
BackgroundThread::~BackgroundThread() {
    if (isLost()) {
        (void)worker.release();
        return;
    }
    WorkerRegistry<Worker>::get().remove(worker.get());
}

void BackgroundThread::start(std::function<void()> work) {
    {
        const std::lock_guard lock(worker->mutex);
        worker->work = std::move(work);
        worker->busy = true;
    }
    worker->changed.notify_all();
}

bool BackgroundThread::isBusy() const {
    const std::lock_guard lock(worker->mutex);
    return worker->busy;
}

void BackgroundThread::wait() const {
    worker->wait();
}

bool BackgroundThread::isLost() const {
    return ::getpid() != process;
}
