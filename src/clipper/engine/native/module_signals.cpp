// Signals: the second of a kind ends the process, also while Python hears none.
#include <csignal>
#include <ctime>

#include "bindings.hpp"

namespace clipper_python {

using namespace nb::literals;

namespace {

constexpr int kMostSignals = 65;

struct Watched {
  struct sigaction before;
  double grace_seconds = 0.0, first = 0.0;
  bool is_heard = false;
};
Watched watched[kMostSignals];

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);  // may be called from a handler
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Hands a signal on to who had it before; one that comes later than the grace ends the process.
void take(int number) {
  Watched& signal = watched[number];
  if (!signal.is_heard) {
    signal.first = now();
    signal.is_heard = true;
  } else if (now() - signal.first > signal.grace_seconds) {
    std::signal(number, SIG_DFL);
    std::raise(number);
    return;
  }
  signal.before.sa_handler(number);
}

// Has a second signal, not sooner than so many seconds after the first, end the process.
void end_at_second(int number, double grace_seconds) {
  if (number < 1 || number >= kMostSignals) throw nb::value_error("number must be a signal's");
  struct sigaction before {};
  sigaction(number, nullptr, &before);
  const bool is_function = (before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler != SIG_DFL &&
                           before.sa_handler != SIG_IGN;
  if (!is_function) throw nb::value_error("number must be of a signal that is handled");
  if (before.sa_handler == take) before = watched[number].before;
  watched[number] = {before, grace_seconds, 0.0, false};
  struct sigaction ours = before;
  ours.sa_handler = take;
  sigaction(number, &ours, nullptr);
}

}  // namespace

void bind_signals(nb::module_& m) {
  m.def("end_at_second", &end_at_second, "number"_a, "grace_seconds"_a);
}

}  // namespace clipper_python
