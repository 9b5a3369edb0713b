// Two threads hand tasks over by spinning on atomics: a sleep and a wake-up cost more than the task.
#include "partner.hpp"

#include <chrono>

#include <unistd.h>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace clipper {

namespace {

using Clock = std::chrono::steady_clock;

// a partner that is this many times slower than the caller, and this much, was not running
constexpr int kPatience = 4;
constexpr std::chrono::microseconds kGrace{200};

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

// the process that the partner was made in, 0 before: a fork copies the object, not its thread
std::atomic<pid_t> home{0};

bool was_left_behind() { return home != 0 && home != getpid(); }

}  // namespace

Partner& Partner::get() {
  // not destroyed at the end of the process, where a fork would wait for the thread it has not
  static Partner* const partner = new Partner;
  return *partner;
}

Partner::Partner() : thread_([this] { work(); }) { home = getpid(); }

void Partner::work() {
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return is_awake_.load(); });
    }
    while (is_awake_.load(std::memory_order_relaxed)) {
      const std::function<void()>* task = task_.load(std::memory_order_acquire);
      if (task == nullptr) {
        relax();
        continue;
      }
      (*task)();
      task_.store(nullptr, std::memory_order_relaxed);
      finished_.fetch_add(1, std::memory_order_release);
    }
  }
}

bool Partner::run(const std::function<void()>& own, const std::function<void()>& other) {
  const Clock::time_point begin = Clock::now();
  ++started_;
  task_.store(&other, std::memory_order_release);
  own();
  const Clock::duration mine = Clock::now() - begin;
  unsigned spins = 0;
  while (finished_.load(std::memory_order_acquire) != started_) {
    relax();
    if (++spins % 1024 == 0) std::this_thread::yield();
  }
  return Clock::now() - begin < kPatience * mine + kGrace;
}

void Partnership::wake(Partner& partner) {
  {
    const std::lock_guard<std::mutex> lock(partner.mutex_);
    partner.is_awake_ = true;
  }
  partner.wake_.notify_one();
}

#if defined(__linux__)

struct Partnership::Affinity {
  cpu_set_t caller;
};

bool Partner::is_possible() {
  cpu_set_t set;
  return !was_left_behind() && sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

// The partner may run wherever this thread may, but for the CPU that this one is on: woken there, it
// would wait for this one, which waits for it. With two CPUs this thread has to keep to the other one. With
// more the kernel keeps two busy threads apart, and knows better than we do which CPUs others want.
Partnership::Partnership() : is_ours_(!Partner::get().is_taken_.exchange(true)) {
  if (!is_ours_) return;
  Partner& partner = Partner::get();
  cpu_set_t set;
  const int here = sched_getcpu();
  if (here >= 0 && pthread_getaffinity_np(pthread_self(), sizeof(set), &set) == 0 &&
      CPU_COUNT(&set) > 1) {
    cpu_set_t there = set;
    CPU_CLR(here, &there);
    pthread_setaffinity_np(partner.thread_.native_handle(), sizeof(there), &there);
    if (CPU_COUNT(&there) == 1) {
      before_ = new Affinity{set};
      CPU_XOR(&set, &set, &there);
      pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
    }
  }
  wake(partner);
}

Partnership::~Partnership() {
  if (!is_ours_) return;
  Partner& partner = Partner::get();
  partner.is_awake_ = false;
  if (before_ != nullptr) {
    pthread_setaffinity_np(pthread_self(), sizeof(before_->caller), &before_->caller);
    delete before_;
  }
  partner.is_taken_ = false;
}

#else

struct Partnership::Affinity {};

bool Partner::is_possible() {
  return !was_left_behind() && std::thread::hardware_concurrency() > 1;
}

Partnership::Partnership() : is_ours_(!Partner::get().is_taken_.exchange(true)) {
  if (is_ours_) wake(Partner::get());
}

Partnership::~Partnership() {
  if (!is_ours_) return;
  Partner::get().is_awake_ = false;
  Partner::get().is_taken_ = false;
}

#endif

}  // namespace clipper
