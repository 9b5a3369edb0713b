// A second thread that works beside the caller's, for tasks of a few microseconds.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace clipper {

// How often the second thread came late, and whether it is still worth asking. A hiccup costs some
// milliseconds, and a thousand tasks side by side save more than that; where another process wants the
// core, every hundredth task or so waits for it.
class Stalls {
 public:
  constexpr void note(bool was_there) {
    ++num_tasks_;
    num_late_ += was_there ? 0 : 1;
  }
  constexpr bool are_too_many() const { return num_late_ >= 3 + num_tasks_ / 1000; }

 private:
  int64_t num_tasks_ = 0, num_late_ = 0;
};

// One a process, made when it is first needed and never ended. Within `Partnership` it spins, on a
// core of its own; outside it sleeps.
class Partner {
 public:
  static Partner& get();
  // There is a second core for this process, and its thread was not left behind by a fork.
  static bool is_possible();

  // Runs `other` on the second thread and `own` on this one, and returns when both are done.
  // False if the second thread was not there in time: its core is wanted by somebody else.
  bool run(const std::function<void()>& own, const std::function<void()>& other);

 private:
  friend class Partnership;
  Partner();
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> is_awake_{false}, is_taken_{false};
  std::atomic<const std::function<void()>*> task_{nullptr};
  std::atomic<unsigned> finished_{0};
  unsigned started_ = 0;
  std::thread thread_;  // last: it uses all the others from its first moment
};

// Keeps the partner awake, and the two threads on different cores, as long as it lives. There is one at a
// time: an update that begins while another one waits (for a signal's handler) works alone.
class Partnership {
 public:
  Partnership();
  ~Partnership();
  // This one has the partner; another one has it otherwise.
  bool is_ours() const { return is_ours_; }
  Partnership(const Partnership&) = delete;
  Partnership& operator=(const Partnership&) = delete;

 private:
  struct Affinity;
  void wake(Partner& partner);
  const bool is_ours_;
  Affinity* before_ = nullptr;
};

}  // namespace clipper
