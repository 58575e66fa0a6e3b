#include "client/interrupts.h"

#include <atomic>

namespace accrue {
namespace {

constexpr int kSignals[3] = {SIGINT, SIGTERM, SIGHUP};
std::atomic<int> interrupt_count{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler raises it");

void CountInterrupt(int) { interrupt_count.fetch_add(1); }

}  // namespace

Interrupts::Interrupts() {
  interrupt_count = 0;
  struct sigaction action {};
  action.sa_handler = CountInterrupt;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &before_[i]);
}

Interrupts::~Interrupts() {
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &before_[i], nullptr);
}

int Interrupts::Count() { return interrupt_count.load(); }

}  // namespace accrue
