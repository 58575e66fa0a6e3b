#include "worker/collective/collective.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/status.h"

namespace accrue {
namespace {

constexpr char kUnreachablePayload[] = "accrue/unreachable-ranks";

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> CollectiveFactory::Form(const std::string& name, int rank, int size,
                                                                      int64_t deadline_ms) {
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator, Create(name, rank, size, deadline_ms));
  ACCRUE_RETURN_IF_ERROR(communicator->Meet());
  return communicator;
}

std::vector<int> UnreachableRanks(const absl::Status& status) {
  std::vector<int> ranks;
  const absl::optional<absl::Cord> payload = status.GetPayload(kUnreachablePayload);
  if (!payload) return ranks;
  for (absl::string_view text : absl::StrSplit(std::string(*payload), ',', absl::SkipEmpty())) {
    if (int rank = 0; absl::SimpleAtoi(text, &rank)) ranks.push_back(rank);
  }
  return ranks;
}

void SetUnreachableRanks(const std::vector<int>& ranks, absl::Status& status) {
  if (!ranks.empty()) status.SetPayload(kUnreachablePayload, absl::Cord(absl::StrJoin(ranks, ",")));
}

}  // namespace accrue
