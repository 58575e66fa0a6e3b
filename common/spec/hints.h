// What to say about a field that does not exist: the nearest name, or what another tool's name is called
// here. The part about words serves command lines too.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"

namespace accrue::spec {

// ` (did you mean "clip_norm"?)`, `: write batch.sequences, ...`, or the fields that there are.
std::string HintForUnknownField(absl::string_view name, const google::protobuf::Descriptor& where);

// The same for a value that must be one of a few words.
std::string HintForUnknownWord(absl::string_view word, const std::vector<std::string>& allowed);

// Insertions, deletions, substitutions and swaps of neighbours that turn one into the other.
int EditDistance(absl::string_view a, absl::string_view b);

}  // namespace accrue::spec
