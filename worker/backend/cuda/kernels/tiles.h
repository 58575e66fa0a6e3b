// Products of small matrices in a block's shared memory and a warp's registers: bf16 and fp16 on tensor cores, binary32 by
// fused multiply-adds in ascending order of what is summed over. A warp computes stripes of 16 rows.
#pragma once

#include <cstdint>
#include <type_traits>

#include "worker/backend/cuda/kernels/tensor_core.h"

namespace accrue::cuda {

inline constexpr int kStripe = 16;

// Where a piece of 16 bytes of a row of a tile lies: its place within the row depends on the row, so that the same
// piece of eight rows lies in different banks.
template <typename T, int kColumns>
ACCRUE_BODY T* PieceAt(T* elements, int row, int piece) {
  constexpr int kPiece = 16 / static_cast<int>(sizeof(T)), kPieces = kColumns / kPiece;
  static_assert(kPieces >= 8 && kColumns % kPiece == 0);
  return elements + (row * kPieces + (piece ^ (row & 7))) * kPiece;
}

// In shared memory.
template <typename T, int kRows_, int kColumns_>
struct alignas(16) Tile {
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kPiece = 16 / static_cast<int>(sizeof(T)), kPieces = kColumns / kPiece;

  T elements[kRows * kColumns];

  ACCRUE_BODY T* Piece(int row, int piece) { return PieceAt<T, kColumns>(elements, row, piece); }
  ACCRUE_BODY const T* Piece(int row, int piece) const { return PieceAt<const T, kColumns>(elements, row, piece); }
};

// A stripe of sums, [16, kColumns], in binary32; block n holds columns 8n .. 8n + 7 as tensor_core.h's c.
template <int kColumns_>
struct Sums16 {
  static constexpr int kColumns = kColumns_, kBlocks = kColumns / 8;
  PerLane<float> at[kBlocks][4];

  ACCRUE_BODY void SetZero() {
    ACCRUE_UNROLL
    for (int n = 0; n < kBlocks; ++n) {
      ACCRUE_UNROLL
      for (int i = 0; i < 4; ++i) {
        ForLanes([&](int lane) { at[n][i][lane] = 0; });
      }
    }
  }
};
// Row and column of value i of block n.
ACCRUE_BODY int SumRow(int lane, int i) { return lane / 4 + i / 2 * 8; }
ACCRUE_BODY int SumColumn(int lane, int n, int i) { return n * 8 + lane % 4 * 2 + i % 2; }

// 16 rows of a tile as the left side of products: 16-bit elements that are kHeld in registers, or read again for each product.
template <typename T, int kDepth, bool kHeld>
struct LeftRows {
  static constexpr bool kInRegisters = kHeld && !std::is_same<T, float>::value;
  const T* elements;  // of the tile
  int first_row;
  Words4 held[kInRegisters ? kDepth / 16 : 1];

  template <int kRows>
  ACCRUE_BODY void Take(const Tile<T, kRows, kDepth>& from, int row) {
    elements = from.elements;
    first_row = row;
    if constexpr (kInRegisters) {
      ACCRUE_UNROLL
      for (int k = 0; k < kDepth / 16; ++k) Read(k, held[k]);
    }
  }
  // Columns 16 k .. 16 k + 15.
  ACCRUE_BODY void Read(int k, Words4& to) const {
    LoadMatrices<false>(to, [&](int lane) {
      return PieceAt<const T, kDepth>(elements, first_row + lane % 8 + lane / 8 % 2 * 8, 2 * k + lane / 16);
    });
  }
};

// sums[s] += left[s] right[first .. first + kColumns - 1, :]^T for the stripes s.
template <typename T, int kStripes, bool kHeld, int kRows, int kDepth, int kColumns>
ACCRUE_BODY void AddTransposedProduct(const LeftRows<T, kDepth, kHeld> (&left)[kStripes],
                                      const Tile<T, kRows, kDepth>& right, int first,
                                      Sums16<kColumns> (&sums)[kStripes]) {
  ACCRUE_UNROLL
  for (int k = 0; k < kDepth / 16; ++k) {
    Words4 read[kStripes];
    if constexpr (!kHeld) {
      ACCRUE_UNROLL
      for (int s = 0; s < kStripes; ++s) left[s].Read(k, read[s]);
    }
    ACCRUE_UNROLL
    for (int n = 0; n < kColumns / 16; ++n) {
      Words4 b;
      LoadMatrices<false>(b, [&](int lane) {
        return right.Piece(first + n * 16 + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2);
      });
      ACCRUE_UNROLL
      for (int s = 0; s < kStripes; ++s) {
        const Words4& a = kHeld ? left[s].held[kHeld ? k : 0] : read[s];
        MultiplyAdd<T>(sums[s].at[2 * n], a, b.at[0], b.at[1]);
        MultiplyAdd<T>(sums[s].at[2 * n + 1], a, b.at[2], b.at[3]);
      }
    }
  }
}
template <int kStripes, bool kHeld, int kRows, int kDepth, int kColumns>
ACCRUE_BODY void AddTransposedProduct(const LeftRows<float, kDepth, kHeld> (&left)[kStripes],
                                      const Tile<float, kRows, kDepth>& right, int first,
                                      Sums16<kColumns> (&sums)[kStripes]) {
  constexpr int kPiece = 4;
  ACCRUE_UNROLL
  for (int s = 0; s < kStripes; ++s) {
    ForLanes([&](int lane) {
#ifdef __CUDA_ARCH__
#pragma unroll 2
#endif
      for (int piece = 0; piece < kDepth / kPiece; ++piece) {
        float a[2][kPiece];
        ACCRUE_UNROLL
        for (int i = 0; i < 2; ++i) {
          const Pack<float, kPiece> pack = Load<kPiece>(
              PieceAt<const float, kDepth>(left[s].elements, left[s].first_row + SumRow(lane, 2 * i), piece), true);
          ACCRUE_UNROLL
          for (int k = 0; k < kPiece; ++k) a[i][k] = pack.at[k];
        }
        ACCRUE_UNROLL
        for (int n = 0; n < kColumns / 8; ++n) {
          ACCRUE_UNROLL
          for (int j = 0; j < 2; ++j) {
            const Pack<float, kPiece> b = Load<kPiece>(right.Piece(first + SumColumn(lane, n, j), piece), true);
            ACCRUE_UNROLL
            for (int k = 0; k < kPiece; ++k) {
              sums[s].at[n][j][lane] = Fma(a[0][k], b.at[k], sums[s].at[n][j][lane]);
              sums[s].at[n][j + 2][lane] = Fma(a[1][k], b.at[k], sums[s].at[n][j + 2][lane]);
            }
          }
        }
      }
    });
  }
}

// A warp's own memory for AddProduct: binary32 weights change lanes through it; those of 16 bits need none.
template <typename T, int kDepth>
struct WeightScratch {
  static constexpr int kStride = kDepth + 4;
  float at[std::is_same<T, float>::value ? kStripe * kStride : 1];
};

// sums[s] += weights[s] right[first .. first + kDepth - 1, :], weights rounded to T.
template <typename T, int kStripes, int kRows, int kDepth, int kColumns>
ACCRUE_BODY void AddProduct(const Sums16<kDepth> (&weights)[kStripes], const Tile<T, kRows, kColumns>& right, int first,
                            Sums16<kColumns> (&sums)[kStripes], WeightScratch<T, kDepth>&) {
  ACCRUE_UNROLL
  for (int k = 0; k < kDepth / 16; ++k) {
    Words4 a[kStripes];
    ACCRUE_UNROLL
    for (int s = 0; s < kStripes; ++s) {
      ACCRUE_UNROLL
      for (int word = 0; word < 4; ++word) {
        const auto& block = weights[s].at[2 * k + word / 2];
        ForLanes([&](int lane) {
          a[s].at[word][lane] = PackPair<T>(block[word % 2 * 2][lane], block[word % 2 * 2 + 1][lane]);
        });
      }
    }
    ACCRUE_UNROLL
    for (int n = 0; n < kColumns / 16; ++n) {
      Words4 b;
      LoadMatrices<true>(b, [&](int lane) {
        return right.Piece(first + k * 16 + lane % 8 + lane / 8 % 2 * 8, 2 * n + lane / 16);
      });
      ACCRUE_UNROLL
      for (int s = 0; s < kStripes; ++s) {
        MultiplyAdd<T>(sums[s].at[2 * n], a[s], b.at[0], b.at[1]);
        MultiplyAdd<T>(sums[s].at[2 * n + 1], a[s], b.at[2], b.at[3]);
      }
    }
  }
}
template <int kStripes, int kRows, int kDepth, int kColumns>
ACCRUE_BODY void AddProduct(const Sums16<kDepth> (&weights)[kStripes], const Tile<float, kRows, kColumns>& right,
                            int first, Sums16<kColumns> (&sums)[kStripes], WeightScratch<float, kDepth>& scratch) {
  constexpr int kPiece = 4, kStride = WeightScratch<float, kDepth>::kStride;
  ACCRUE_UNROLL
  for (int s = 0; s < kStripes; ++s) {
    MeetInWarp();
    ForLanes([&](int lane) {
      ACCRUE_UNROLL
      for (int n = 0; n < kDepth / 8; ++n) {
        ACCRUE_UNROLL
        for (int i = 0; i < 4; ++i) {
          scratch.at[SumRow(lane, i) * kStride + SumColumn(lane, n, i)] = weights[s].at[n][i][lane];
        }
      }
    });
    MeetInWarp();
    ForLanes([&](int lane) {
      const int in_piece = lane % 4 * 2 % kPiece;
#ifdef __CUDA_ARCH__
#pragma unroll 2
#endif
      for (int k = 0; k < kDepth; ++k) {
        const float low = scratch.at[SumRow(lane, 0) * kStride + k], high = scratch.at[SumRow(lane, 2) * kStride + k];
        ACCRUE_UNROLL
        for (int n = 0; n < kColumns / 8; ++n) {
          const Pack<float, 2> b = Load<2>(right.Piece(first + k, n * 2 + lane % 4 / 2) + in_piece, true);
          ACCRUE_UNROLL
          for (int j = 0; j < 2; ++j) {
            sums[s].at[n][j][lane] = Fma(low, b.at[j], sums[s].at[n][j][lane]);
            sums[s].at[n][j + 2][lane] = Fma(high, b.at[j], sums[s].at[n][j + 2][lane]);
          }
        }
      }
    });
  }
}

// A matrix in device memory of which a tile takes rows.
template <typename T>
struct RowSource {
  const T* begin;
  int64_t stride;
  int rows, columns;  // beyond them the tile is zero
  bool aligned;       // rows begin at multiples of 16 bytes, columns are whole pieces
};

template <int kThreads, typename T, int kRows, int kColumns>
ACCRUE_BODY void FetchUnaligned(const RowSource<T>& source, int first, int warp, Tile<T, kRows, kColumns>& to) {
  constexpr int kPiece = Tile<T, kRows, kColumns>::kPiece;
  ForLanes([&](int lane) {
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
    for (int at = warp * kLanes + lane; at < kRows * kColumns; at += kThreads) {
      const int row = at / kColumns, column = at % kColumns;
      const bool valid = first + row < source.rows && column < source.columns;
      to.Piece(row, column / kPiece)[column % kPiece] =
          valid ? source.begin[(first + row) * source.stride + column] : FromFloat<T>(0.0f);
    }
  });
}

// The warp's share of bringing rows first .. first + kRows - 1 into a tile. Where they are aligned the copies are only
// started: the block waits for them (kernels/tile_loop.h).
template <int kWarps, typename T, int kRows, int kColumns>
ACCRUE_BODY void FetchTile(const RowSource<T>& source, int first, int warp, Tile<T, kRows, kColumns>& to) {
  using To = Tile<T, kRows, kColumns>;
  constexpr int kThreads = kWarps * kLanes, kCount = kRows * To::kPieces;
  static_assert(kCount % kThreads == 0);
  if (!source.aligned) return FetchUnaligned<kThreads>(source, first, warp, to);
  ForLanes([&](int lane) {
    ACCRUE_UNROLL
    for (int i = 0; i < kCount / kThreads; ++i) {
      const int at = i * kThreads + warp * kLanes + lane;
      const int row = at / To::kPieces, column = at % To::kPieces * To::kPiece;
      const bool valid = first + row < source.rows && column < source.columns;
      const int64_t from = valid ? (first + row) * source.stride + column : 0;
      StartCopy<16>(to.Piece(row, at % To::kPieces), source.begin + from, valid);
    }
  });
}

// The stripe, times scale, into rows first .. of a matrix like `to`.
template <typename T, int kColumns>
ACCRUE_BODY void StoreStripe(const Sums16<kColumns>& sums, float scale, const RowSource<T>& to, int first) {
  const bool pairs = to.aligned;
  ForLanes([&](int lane) {
    ACCRUE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = first + SumRow(lane, 2 * half);
      if (row >= to.rows) continue;
      T* const begin = const_cast<T*>(to.begin) + row * to.stride;
      ACCRUE_UNROLL
      for (int n = 0; n < kColumns / 8; ++n) {
        const int column = SumColumn(lane, n, 0);
        Pack<T, 2> pair;
        ACCRUE_UNROLL
        for (int j = 0; j < 2; ++j) pair.at[j] = FromFloat<T>(Mul(sums.at[n][2 * half + j][lane], scale));
        if (pairs) {
          if (column < to.columns) Store<2>(begin + column, pair, true);
        } else {
          for (int j = 0; j < 2; ++j) {
            if (column + j < to.columns) begin[column + j] = pair.at[j];
          }
        }
      }
    }
  });
}

}  // namespace accrue::cuda
