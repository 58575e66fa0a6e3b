// Ctrl-C and its kin, counted instead of ending the process.
//
// One object at a time. Count may be called from any thread.
#pragma once

#include <csignal>

namespace accrue {

class Interrupts {
 public:
  // Takes over SIGINT, SIGTERM and SIGHUP, with a count of zero; the destructor gives them back.
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  static int Count();

 private:
  struct sigaction before_[3];
};

}  // namespace accrue
