#include "common/hash.h"

#include <xxh_x86dispatch.h>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace accrue {
namespace {

Hash128 Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  Hash128 result;
  static_assert(sizeof(canonical.digest) == sizeof(result.bytes));
  std::copy(std::begin(canonical.digest), std::end(canonical.digest), result.bytes.begin());
  return result;
}

}  // namespace

std::string Hash128::Hex() const {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

absl::StatusOr<Hash128> Hash128::FromHex(absl::string_view text) {
  bool valid = text.size() == 32;
  for (char c : text) valid = valid && absl::ascii_isxdigit(static_cast<unsigned char>(c));
  if (!valid) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a hash of 32 hexadecimal digits, found \"", text.substr(0, 64), "\""));
  }
  const std::string raw = absl::HexStringToBytes(text);
  Hash128 result;
  std::copy(raw.begin(), raw.end(), result.bytes.begin());
  return result;
}

Hash128 HashBytes(const void* data, size_t size_bytes) { return Canonical(XXH3_128bits(data, size_bytes)); }

struct Hasher::State {
  XXH3_state_t* xxh3 = XXH3_createState();
  ~State() { XXH3_freeState(xxh3); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) { ACCRUE_CHECK(XXH3_128bits_reset(state_->xxh3) == XXH_OK); }
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::Update(const void* data, size_t size_bytes) {
  if (size_bytes != 0) ACCRUE_CHECK(XXH3_128bits_update(state_->xxh3, data, size_bytes) == XXH_OK);
}

Hash128 Hasher::Finish() const { return Canonical(XXH3_128bits_digest(state_->xxh3)); }

}  // namespace accrue
