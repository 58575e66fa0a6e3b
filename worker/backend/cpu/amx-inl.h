// The processor's matrix tiles (Intel AMX, bf16): eight of 16 rows of 64 bytes each. Only for code that runs
// where HasAmx() says so (amx.h).
//
// Dot adds to a 16 x 16 tile of binary32 sums the products of 16 x 32 and 32 x 16 bf16: docs/numerics.md,
// section 4, says in which order. The right matrix lies as words of two neighbours in a column.
#pragma once

#include <cstdint>

#include "hwy/base.h"

namespace accrue::cpu::amx {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileDepth = 32;    // bf16 in a row of a left tile
constexpr int64_t kTileBytes = 1024;  // one after the other, rows 64 bytes apart

// While it lives, this thread has its eight tiles.
class Tiles {
 public:
  Tiles() {
    struct alignas(64) Configuration {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static constexpr Configuration configuration;
    asm volatile("ldtilecfg %0" ::"m"(configuration));
  }
  ~Tiles() { asm volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

template <int kTile>
HWY_INLINE void Zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
HWY_INLINE void Load(const void* from, int64_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
HWY_INLINE void Store(void* to, int64_t row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kSums, int kLeft, int kRight>
HWY_INLINE void Dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kLeft), "i"(kRight));
}

// A pair of left tiles, one below the other, and how to get on along K.
struct LeftPair {
  const void* first = nullptr;
  int64_t row_bytes = 0;     // from row to row of a tile
  int64_t second_bytes = 0;  // from the upper tile to the lower one
  int64_t step_bytes = 0;    // to the next 32 of K
};

// Rows of memory that are written soon, by their first and their last byte: so many of them are asked for
// with each 32 of K.
struct Fetch {
  const char* first = nullptr;
  const char* last = nullptr;
  int64_t row_bytes = 0;
  int64_t rows = 0;  // 0: none
};

// sums (tiles 0 and 1 above 2 and 3) += left right: `steps` times 32 of K. right: pairs of tiles beside each
// other, one after the other.
HWY_INLINE void DotPairs(const LeftPair& left, const void* right, int64_t steps, const Fetch& fetch) {
  const char* a = static_cast<const char*>(left.first);
  const char* b = static_cast<const char*>(right);
  int64_t ahead = 0;
  for (int64_t s = 0; s < steps; ++s, a += left.step_bytes, b += 2 * kTileBytes) {
    Load<4>(a, left.row_bytes);
    Load<6>(b, 64);
    Dot<0, 4, 6>();
    Load<7>(b + kTileBytes, 64);
    Dot<1, 4, 7>();
    for (int64_t r = 0; r < fetch.rows; ++r, ahead += fetch.row_bytes) {
      __builtin_prefetch(fetch.first + ahead, 1);
      __builtin_prefetch(fetch.last + ahead, 1);
    }
    Load<5>(a + left.second_bytes, left.row_bytes);
    Dot<2, 5, 6>();
    Dot<3, 5, 7>();
  }
}

// The four tiles of sums as a 32 x 32 matrix of binary32.
HWY_INLINE void ZeroSums() {
  Zero<0>();
  Zero<1>();
  Zero<2>();
  Zero<3>();
}
HWY_INLINE void LoadSums(const float* from, int64_t row_bytes) {
  const char* low = reinterpret_cast<const char*>(from) + 16 * row_bytes;
  Load<0>(from, row_bytes);
  Load<1>(from + 16, row_bytes);
  Load<2>(low, row_bytes);
  Load<3>(low + 64, row_bytes);
}
HWY_INLINE void StoreSums(float* to, int64_t row_bytes) {
  char* low = reinterpret_cast<char*>(to) + 16 * row_bytes;
  Store<0>(to, row_bytes);
  Store<1>(to + 16, row_bytes);
  Store<2>(low, row_bytes);
  Store<3>(low + 64, row_bytes);
}

// The same for a row of kColumns tiles of sums, at most four, beside each other: left is one tile and its
// step along K 64 bytes; right's rows are right_row_bytes apart.
template <int kColumns>
HWY_INLINE void ZeroRow() {
  Zero<0>();
  if constexpr (kColumns > 1) Zero<1>();
  if constexpr (kColumns > 2) Zero<2>();
  if constexpr (kColumns > 2) Zero<3>();
}
template <int kColumns>
HWY_INLINE void LoadRow(const float* from, int64_t row_bytes) {
  Load<0>(from, row_bytes);
  if constexpr (kColumns > 1) Load<1>(from + 16, row_bytes);
  if constexpr (kColumns > 2) Load<2>(from + 32, row_bytes);
  if constexpr (kColumns > 2) Load<3>(from + 48, row_bytes);
}
template <int kColumns>
HWY_INLINE void StoreRow(float* to, int64_t row_bytes) {
  Store<0>(to, row_bytes);
  if constexpr (kColumns > 1) Store<1>(to + 16, row_bytes);
  if constexpr (kColumns > 2) Store<2>(to + 32, row_bytes);
  if constexpr (kColumns > 2) Store<3>(to + 48, row_bytes);
}
template <int kColumns>
HWY_INLINE void DotRow(const void* left, int64_t left_row_bytes, const void* right, int64_t right_row_bytes,
                       int64_t steps) {
  static_assert(kColumns == 1 || kColumns == 2 || kColumns == 4);
  const char* a = static_cast<const char*>(left);
  const char* b = static_cast<const char*>(right);
  for (int64_t s = 0; s < steps; ++s, a += 64, b += kTileRows * right_row_bytes) {
    Load<4>(a, left_row_bytes);
    Load<5>(b, right_row_bytes);
    Dot<0, 4, 5>();
    if constexpr (kColumns > 1) {
      Load<6>(b + 64, right_row_bytes);
      Dot<1, 4, 6>();
    }
    if constexpr (kColumns > 2) {
      Load<7>(b + 128, right_row_bytes);
      Dot<2, 4, 7>();
      Load<5>(b + 192, right_row_bytes);
      Dot<3, 4, 5>();
    }
  }
}

}  // namespace accrue::cpu::amx
