// YAML text as a plain tree with the place of every node, from input that may be hostile. Internal to
// common/spec.
//
// Bounded: text of at most 1 MiB, 32 levels, 65,536 nodes; no anchors or aliases, so nothing expands; one
// document.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/spec/problems.h"

namespace accrue::spec {

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMapping };
  Kind kind = Kind::kNull;
  SourceMark mark;
  bool quoted = false;             // of a scalar: never a number, a boolean or null
  std::string text;                // of a scalar
  std::vector<YamlNode> children;  // items; or keys and values in turn, repeated keys kept
};

// Adds to `problems` and returns false when the text is not such a document.
bool ReadYaml(absl::string_view text, YamlNode& root, Problems& problems);

// "the number 5", "a list", "nothing": for messages.
std::string DescribeNode(const YamlNode& node);

}  // namespace accrue::spec
