// Tokenises a data set on several threads and hands over the results in order.
//
// Which tokens an item has depends on the item and the tokenizer alone.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "common/data_tools/documents.h"
#include "common/tokenizer/tokenizer.h"

namespace accrue {

// Tokens of an item that go to one split.
struct TokenRun {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> mask;    // of prompt/completion data: one a token, 1 where it is a target
  std::vector<int64_t> starts;  // where documents begin; ascending, each in [0, tokens.size()]
};

struct TokenizedItem {
  int64_t ordinal = 0;
  uint64_t end_in_data = 0;            // bytes of the data set up to the end of the item
  std::array<TokenRun, kSplits> runs;  // by Split
};

// Which items a split still needs: from this ordinal on.
using FirstNeeded = std::array<int64_t, kSplits>;

// INVALID_ARGUMENT for a bad JSONL record, by file, line and column. Runs of splits that do not need the item
// are left empty.
absl::Status TokenizeItem(const Item& item, const InputPlan& plan, const Tokenizer& tokenizer,
                          const FirstNeeded& first_needed, Encoder* encoder, TokenizedItem* out);

// Calls consume with every item that a split needs, in order, on the calling thread. Stops at the first
// error, of an item or of consume; of several items' errors the first in order is returned.
absl::Status TokenizeAll(FileSystem& file_system, const InputPlan& plan, const Tokenizer& tokenizer,
                         const FirstNeeded& first_needed, int threads,
                         const std::function<absl::Status(const TokenizedItem&)>& consume);

}  // namespace accrue
