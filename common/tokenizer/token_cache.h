// Ids of words that were encoded before. Words repeat, so most of a corpus is looked up instead of merged.
//
// Bounded: at the limit everything is forgotten. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace accrue {

class TokenCache {
 public:
  // Longer words seldom repeat.
  static constexpr size_t kMaxWordBytes = 64;

  // Appends the ids of word, from `encode(word, ids)` (an absl::Status; it appends) when they are not known.
  template <typename Encode>
  auto Append(absl::string_view word, std::vector<int32_t>* ids, Encode encode)
      -> decltype(encode(word, ids)) {
    if (word.size() > kMaxWordBytes) return encode(word, ids);
    if (const auto it = entries_.find(word); it != entries_.end()) {
      const int32_t* from = tokens_.data() + it->second.first;
      ids->insert(ids->end(), from, from + it->second.count);
      return {};
    }
    const size_t before = ids->size();
    auto status = encode(word, ids);
    if (!status.ok()) return status;
    if (entries_.size() == kMaxEntries) {
      entries_.clear();
      tokens_.clear();
    }
    entries_.emplace(std::string(word), Entry{static_cast<uint32_t>(tokens_.size()),
                                              static_cast<uint32_t>(ids->size() - before)});
    tokens_.insert(tokens_.end(), ids->begin() + static_cast<std::ptrdiff_t>(before), ids->end());
    return status;
  }

 private:
  static constexpr size_t kMaxEntries = size_t{1} << 17;
  struct Entry {
    uint32_t first = 0;  // into tokens_
    uint32_t count = 0;
  };

  absl::flat_hash_map<std::string, Entry> entries_;
  std::vector<int32_t> tokens_;
};

}  // namespace accrue
