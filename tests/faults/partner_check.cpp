// When one thread goes on alone, by arithmetic: nothing is run.
#include "partner.hpp"

namespace {

// Whether so many late tasks among so many are too many, the late ones last.
constexpr bool too_many(int64_t late, int64_t tasks) {
  clipper::Stalls stalls;
  for (int64_t i = 0; i < tasks; ++i) stalls.note(i < tasks - late);
  return stalls.are_too_many();
}

}  // namespace

// a hiccup or two are none, whatever the number of tasks
static_assert(!too_many(0, 0) && !too_many(2, 2) && too_many(3, 3));
// a core that is wanted by somebody else: every hundredth task waits
static_assert(too_many(10, 1000) && too_many(200, 20000));
// three hiccups among the 20,000 of a long update are no more than one among 7,000
static_assert(!too_many(3, 20000) && !too_many(22, 20000) && too_many(23, 20000));
