// A fresh folder that is removed with the object.
#pragma once

#include <stdlib.h>

#include <string>

#include <gtest/gtest.h>

#include "common/check.h"
#include "common/file_system.h"

namespace accrue {

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(testing::TempDir() + "/accrue_XXXXXX") {
    ACCRUE_CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~TemporaryFolder() { FileSystem::Real().RemoveAll(path_).IgnoreError(); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return JoinPath(path_, name); }

 private:
  std::string path_;
};

}  // namespace accrue
