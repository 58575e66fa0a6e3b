// XXH3-128, the one hash of files, digests and checkpoints. Not a defence against forgery.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace accrue {

// Canonical (big-endian) bytes of an XXH3-128 value.
struct Hash128 {
  std::array<uint8_t, 16> bytes{};
  friend bool operator==(const Hash128&, const Hash128&) = default;
  friend auto operator<=>(const Hash128&, const Hash128&) = default;
  std::string Hex() const;  // 32 lower-case digits
  // INVALID_ARGUMENT unless text is 32 hexadecimal digits.
  static absl::StatusOr<Hash128> FromHex(absl::string_view text);
};

Hash128 HashBytes(const void* data, size_t size_bytes);

// For data that arrives in pieces; equal to HashBytes of the concatenation. Not thread-safe.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void Update(const void* data, size_t size_bytes);
  void Update(absl::string_view text) { Update(text.data(), text.size()); }
  Hash128 Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrue
