#include "common/data/shard.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace accrue {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are little-endian and are read in place");

constexpr char kMegatronMagic[] = "MMIDIDX\0";  // 9 bytes with the second zero, as the format has it
constexpr size_t kMegatronMagicBytes = 9;
constexpr size_t kMegatronHeaderBytes = kMegatronMagicBytes + 8 + 1 + 8 + 8;
constexpr uint8_t kMegatronInt32 = 4;
constexpr uint8_t kMegatronUint16 = 8;

template <typename T>
T Load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// Tokens whose largest is found in one vectorised step; a fixed count, so that the compiler unrolls it.
constexpr int64_t kScanBlock = 4096;

template <typename T>
T LargestOfBlock(const T* tokens) {
  T largest = 0;
  for (int64_t i = 0; i < kScanBlock; ++i) largest = tokens[i] > largest ? tokens[i] : largest;
  return largest;
}

// The first index whose token is at or above limit, or count.
template <typename T>
int64_t FirstAtOrAbove(const T* tokens, int64_t count, uint64_t limit) {
  int64_t i = 0;
  while (i + kScanBlock <= count && LargestOfBlock(tokens + i) < limit) i += kScanBlock;
  while (i < count && tokens[i] < limit) ++i;
  return i;
}

// The arrays of an index: int32 lengths, int64 byte offsets, int64 document bounds.
absl::Status CheckMegatronIndex(const MappedFile& index, const std::string& index_path,
                                const std::string& bin_path, uint64_t bin_bytes, int* token_bytes) {
  const auto bad = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": ", parts...));
  };
  const uint8_t* data = index.data();
  const uint64_t size = index.size_bytes();
  if (size < kMegatronHeaderBytes) {
    return bad("expected a Megatron index of at least ", kMegatronHeaderBytes, " bytes, found ", size);
  }
  if (std::memcmp(data, kMegatronMagic, kMegatronMagicBytes) != 0) {
    return bad("expected a Megatron index that begins with MMIDIDX, found other bytes");
  }
  const uint64_t version = Load<uint64_t>(data + kMegatronMagicBytes);
  if (version != 1) return bad("expected Megatron index version 1, found ", version);
  const uint8_t type = data[kMegatronMagicBytes + 8];
  if (type != kMegatronInt32 && type != kMegatronUint16) {
    return bad("expected token type 4 (int32) or 8 (uint16), found ", static_cast<int>(type));
  }
  *token_bytes = type == kMegatronInt32 ? 4 : 2;
  const uint64_t sequences = Load<uint64_t>(data + kMegatronMagicBytes + 9);
  const uint64_t documents = Load<uint64_t>(data + kMegatronMagicBytes + 17);
  const uint64_t body = size - kMegatronHeaderBytes;
  // Bounded before they are multiplied.
  if (sequences > body / 12 || documents > body / 8 || sequences * 12 + documents * 8 != body) {
    return bad("the header says ", sequences, " sequences and ", documents, " document bounds, which ", size,
               " bytes contradict; is the file truncated?");
  }
  const uint8_t* lengths = data + kMegatronHeaderBytes;
  const uint8_t* offsets = lengths + sequences * 4;
  uint64_t expected_offset = 0;
  for (uint64_t i = 0; i < sequences; ++i) {
    const int32_t length = Load<int32_t>(lengths + i * 4);
    const int64_t offset = Load<int64_t>(offsets + i * 8);
    if (length < 0) return bad("sequence ", i, " has the negative length ", length);
    if (offset < 0 || static_cast<uint64_t>(offset) != expected_offset) {
      return bad("sequence ", i, " begins at byte ", offset, ", expected ", expected_offset,
                 ": only sequences that lie one after the other are read");
    }
    expected_offset += static_cast<uint64_t>(length) * static_cast<uint64_t>(*token_bytes);
  }
  if (expected_offset != bin_bytes) {
    return bad("its sequences take ", expected_offset, " bytes, but ", bin_path, " has ", bin_bytes,
               "; do the two belong together?");
  }
  return absl::OkStatus();
}

}  // namespace

std::string LlmcHeader(int64_t tokens, int token_bytes) {
  ACCRUE_CHECK(tokens >= 0 && tokens <= kLlmcMaxTokens);
  ACCRUE_CHECK(token_bytes == 2 || token_bytes == 4);
  std::array<int32_t, kLlmcHeaderBytes / 4> header{};
  header[0] = token_bytes == 2 ? kLlmcMagic16 : kLlmcMagic32;
  header[1] = token_bytes == 2 ? kLlmcVersion16 : kLlmcVersion32;
  header[2] = static_cast<int32_t>(tokens);
  return std::string(reinterpret_cast<const char*>(header.data()), kLlmcHeaderBytes);
}

absl::StatusOr<std::unique_ptr<Shard>> Shard::Open(FileSystem& file_system, const std::string& path) {
  if (absl::EndsWith(path, ".idx")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is an index: name the .bin beside it, the index is found from there"));
  }
  std::unique_ptr<Shard> shard(new Shard);
  ACCRUE_ASSIGN_OR_RETURN(shard->file_, file_system.Map(path));
  shard->info_.path = path;
  shard->info_.size_bytes = shard->file_->size_bytes();
  const bool megatron =
      absl::EndsWith(path, ".bin") && file_system.Exists(path.substr(0, path.size() - 4) + ".idx");
  ACCRUE_RETURN_IF_ERROR(megatron ? shard->ParseMegatron(file_system) : shard->ParseLlmc());
  return shard;
}

absl::Status Shard::ParseLlmc() {
  const auto bad = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(info_.path, ": ", parts...));
  };
  const uint64_t size = info_.size_bytes;
  if (size < kLlmcHeaderBytes) {
    return bad("expected a token shard of at least ", kLlmcHeaderBytes, " bytes, found ", size);
  }
  const int32_t magic = Load<int32_t>(file_->data());
  const int32_t version = Load<int32_t>(file_->data() + 4);
  const int32_t count = Load<int32_t>(file_->data() + 8);
  if (magic != kLlmcMagic16 && magic != kLlmcMagic32) {
    return bad("expected magic number ", kLlmcMagic16, " or ", kLlmcMagic32,
               " (llm.c), or an .idx beside it (Megatron), found ", magic);
  }
  const int32_t expected_version = magic == kLlmcMagic16 ? kLlmcVersion16 : kLlmcVersion32;
  if (version != expected_version) {
    return bad("expected version ", expected_version, " for magic number ", magic, ", found ", version);
  }
  token_bytes_ = magic == kLlmcMagic16 ? 2 : 4;
  if (count < 0) return bad("the header says ", count, " tokens, which is negative");
  const uint64_t expected_size =
      kLlmcHeaderBytes + static_cast<uint64_t>(count) * static_cast<uint64_t>(token_bytes_);
  if (size != expected_size) {
    return bad("the header says ", count, " tokens, so expected ", expected_size, " bytes, found ", size,
               size < expected_size ? "; the file is truncated" : "");
  }
  info_.format = token_bytes_ == 2 ? "llm.c v1 uint16" : "llm.c v7 uint32";
  info_.tokens = count;
  first_token_ = file_->data() + kLlmcHeaderBytes;
  return absl::OkStatus();
}

absl::Status Shard::ParseMegatron(FileSystem& file_system) {
  const std::string index_path = info_.path.substr(0, info_.path.size() - 4) + ".idx";
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> index, file_system.Map(index_path));
  ACCRUE_RETURN_IF_ERROR(CheckMegatronIndex(*index, index_path, info_.path, info_.size_bytes, &token_bytes_));
  info_.format = token_bytes_ == 2 ? "megatron uint16" : "megatron int32";
  info_.tokens = static_cast<int64_t>(info_.size_bytes / static_cast<uint64_t>(token_bytes_));
  first_token_ = file_->data();
  return absl::OkStatus();
}

void Shard::Copy(int64_t first, int64_t count, int32_t* out) const {
  ACCRUE_CHECK(first >= 0 && count >= 0 && first <= info_.tokens && count <= info_.tokens - first);
  if (count == 0) return;
  if (token_bytes_ == 4) {
    std::memcpy(out, first_token_ + first * 4, static_cast<size_t>(count) * 4);
    return;
  }
  const uint16_t* from = reinterpret_cast<const uint16_t*>(first_token_) + first;
  std::copy(from, from + count, out);
}

absl::Status Shard::CheckTokens(int64_t vocabulary) const {
  const uint64_t representable = uint64_t{1} << 31;
  const uint64_t limit =
      vocabulary > 0 ? std::min(static_cast<uint64_t>(vocabulary), representable) : representable;
  if (info_.tokens == 0 || (token_bytes_ == 2 && limit > UINT16_MAX)) return absl::OkStatus();
  const int64_t place =
      token_bytes_ == 2
          ? FirstAtOrAbove(reinterpret_cast<const uint16_t*>(first_token_), info_.tokens, limit)
          : FirstAtOrAbove(reinterpret_cast<const uint32_t*>(first_token_), info_.tokens, limit);
  if (place == info_.tokens) return absl::OkStatus();
  const uint64_t token = token_bytes_ == 2 ? Load<uint16_t>(first_token_ + place * 2)
                                           : uint64_t{Load<uint32_t>(first_token_ + place * 4)};
  return absl::InvalidArgumentError(
      absl::StrCat(info_.path, ": token ", place, " is ", token, ", expected below ", limit,
                   vocabulary > 0 ? " (the model's vocabulary); was the shard made with another tokenizer?"
                                  : " (the most that a token id may be)"));
}

}  // namespace accrue
