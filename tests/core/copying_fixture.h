// A newcomer that copies the state beside the members' work, as tests of it need it.
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/harness.h"

namespace accrue::core {

class CopyingFixture : public testing::Test {
 protected:
  CopyingFixture() : h(Beside()) {}

  static CoreOptions Beside() {
    CoreOptions options = Harness::Options();
    options.copy_beside = true;
    return options;
  }

  // Members that have committed window 0, and a newcomer that loaded after it.
  void Begin(int members, const JobConfig& job = SmallJob()) {
    h.Submit(job);
    workers = h.Start(members);
    h.RunWindow(workers, 0);
    newcomer = h.Join();
    h.Load(newcomer);
  }
  // What the newcomer, or another one, says of the copy that it was told of last.
  void Say(int64_t window, const std::string& digest, const std::string& error = "") {
    SayOf(newcomer, window, digest, error);
  }
  void SayOf(Incarnation from, int64_t window, const std::string& digest, const std::string& error = "") {
    const CopyState order = h.Last<CopyState>(from);
    StateCopied copied{from, order.key, order.communicator, digest, error};
    copied.key.window = Window(window);
    h.Apply(copied);
  }
  std::vector<Incarnation> All() const {
    std::vector<Incarnation> all = workers;
    all.push_back(newcomer);
    return all;
  }

  Harness h;
  std::vector<Incarnation> workers;
  Incarnation newcomer;
};

}  // namespace accrue::core
