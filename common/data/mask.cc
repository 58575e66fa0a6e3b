#include "common/data/mask.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace accrue {
namespace {

constexpr char kMagic[] = "ACCRMASK";
constexpr size_t kMagicBytes = 8;
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 32;

template <typename T>
T Load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
void Store(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MaskSidecar>> MaskSidecar::Open(FileSystem& file_system,
                                                               const std::string& path,
                                                               int64_t shard_tokens) {
  const auto bad = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
  };
  std::unique_ptr<MaskSidecar> sidecar(new MaskSidecar);
  ACCRUE_ASSIGN_OR_RETURN(sidecar->file_, file_system.Map(path));
  const uint64_t size = sidecar->file_->size_bytes();
  const uint8_t* data = sidecar->file_->data();
  if (size < kHeaderBytes) return bad("expected a mask of at least ", kHeaderBytes, " bytes, found ", size);
  if (std::memcmp(data, kMagic, kMagicBytes) != 0) return bad("expected a mask that begins with ", kMagic);
  const uint32_t version = Load<uint32_t>(data + 8);
  if (version != kVersion) return bad("expected mask version ", kVersion, ", found ", version);
  const uint64_t tokens = Load<uint64_t>(data + 16);
  const uint64_t examples = Load<uint64_t>(data + 24);
  if (tokens != static_cast<uint64_t>(shard_tokens)) {
    return bad("the mask is for ", tokens, " tokens, its shard has ", shard_tokens);
  }
  const uint64_t body = size - kHeaderBytes;
  // Bounded before they are multiplied.
  if (examples >= body / 8 + 1 || tokens > body || (examples + 1) * 8 + tokens != body) {
    return bad("the header says ", tokens, " tokens and ", examples, " examples, which ", size,
               " bytes contradict; is the file truncated?");
  }
  sidecar->examples_ = static_cast<int64_t>(examples);
  sidecar->offsets_ = data + kHeaderBytes;
  sidecar->mask_ = sidecar->offsets_ + (examples + 1) * 8;
  uint64_t previous = 0;
  for (uint64_t i = 0; i <= examples; ++i) {
    const uint64_t offset = Load<uint64_t>(sidecar->offsets_ + i * 8);
    if (i == 0 ? offset != 0 : offset <= previous) {
      return bad("example ", i, " begins at token ", offset, ", expected ",
                 i == 0 ? std::string("0") : absl::StrCat("more than ", previous));
    }
    previous = offset;
  }
  if (previous != tokens) return bad("the examples end at token ", previous, ", expected ", tokens);
  return sidecar;
}

std::string MaskSidecar::Encode(absl::Span<const uint64_t> offsets, absl::Span<const uint8_t> mask) {
  ACCRUE_CHECK(!offsets.empty() && offsets.front() == 0 && offsets.back() == mask.size());
  std::string bytes(kMagic, kMagicBytes);
  bytes.reserve(kHeaderBytes + offsets.size() * 8 + mask.size());
  Store<uint32_t>(kVersion, &bytes);
  Store<uint32_t>(0, &bytes);
  Store<uint64_t>(mask.size(), &bytes);
  Store<uint64_t>(offsets.size() - 1, &bytes);
  for (const uint64_t offset : offsets) Store<uint64_t>(offset, &bytes);
  bytes.append(reinterpret_cast<const char*>(mask.data()), mask.size());
  return bytes;
}

int64_t MaskSidecar::offset(int64_t example) const {
  ACCRUE_CHECK(example >= 0 && example <= examples_);
  return static_cast<int64_t>(Load<uint64_t>(offsets_ + example * 8));
}

}  // namespace accrue
