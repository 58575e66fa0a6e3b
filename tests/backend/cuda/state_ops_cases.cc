#include "tests/backend/cuda/state_ops_cases.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/exponents.h"
#include "common/hash.h"
#include "tests/accumulate/state_values.h"
#include "worker/backend/cpu_state/cpu_state_ops.h"

namespace accrue {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

StateOps& CpuOps() {
  static ThreadPool* const pool = new ThreadPool(1);
  static StateOps* const ops = CreateCpuStateOps(*pool).release();
  return *ops;
}

size_t Chunks(size_t elements) { return (elements + kChunkElements - 1) / kChunkElements; }

// An array on the device, `shift` elements from a multiple of 64 bytes, between guards that must stay as they
// are.
template <typename T>
class Held {
 public:
  Held(TestMemory& memory, const std::vector<T>& values, size_t shift)
      : memory_(memory), count_(values.size()), begin_(kGuard + shift), all_(begin_ + count_ + kGuard) {
    std::memset(all_.data(), 0x5a, Bytes());
    std::copy(values.begin(), values.end(), all_.begin() + begin_);
    buffer_ = memory.Allocate(Bytes());
    memory.CopyToDevice(buffer_->data(), all_.data(), Bytes());
  }

  T* data() const { return buffer_->as<T>() + begin_; }

  // What it holds now.
  std::vector<T> Read() const {
    std::vector<T> now(all_.size());
    memory_.CopyToHost(now.data(), buffer_->data(), Bytes());
    EXPECT_EQ(std::memcmp(now.data(), all_.data(), begin_ * sizeof(T)), 0) << "written before the array";
    const size_t end = begin_ + count_;
    EXPECT_EQ(std::memcmp(now.data() + end, all_.data() + end, kGuard * sizeof(T)), 0)
        << "written behind the array";
    return {now.begin() + begin_, now.begin() + end};
  }

 private:
  static constexpr size_t kGuard = 64 / sizeof(T);
  size_t Bytes() const { return all_.size() * sizeof(T); }

  TestMemory& memory_;
  const size_t count_, begin_;
  std::vector<T> all_;
  std::unique_ptr<DeviceBuffer> buffer_;
};

// The same bits; where both are NaN, which NaN is free: a verdict discards what it enters.
void ExpectSame(const std::vector<float>& got, const std::vector<float>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(expected[i])) << "element " << i;
  }
}

void ExpectSame(const std::vector<ChunkStats>& got, const std::vector<ChunkStats>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(got[i].max_abs), std::bit_cast<uint32_t>(expected[i].max_abs))
        << "chunk " << i;
    EXPECT_EQ(got[i].non_finite, expected[i].non_finite) << "chunk " << i;
    EXPECT_EQ(got[i].vanished, expected[i].vanished) << "chunk " << i;
    EXPECT_EQ(got[i].weighted_sum, expected[i].weighted_sum) << "chunk " << i;
  }
}

template <typename Body>
void ForEachSize(const Body& body) {
  std::vector<int64_t> sizes(std::begin(kSizes), std::end(kSizes));
  // About the ends of a hash's stripes, blocks and short forms.
  for (int64_t size : {2, 3, 59, 60, 61, 62, 64, 80, 81, 256, 257, 271, 272, 273, 16383, 32768})
    sizes.push_back(size);
  for (int64_t size : sizes) {
    for (size_t shift : {0, 1}) {
      SCOPED_TRACE(testing::Message() << size << " elements, shifted by " << shift);
      body(size, shift);
    }
  }
}

std::vector<int64_t> EarlierSums(int64_t elements) {
  std::vector<int64_t> sums(elements);
  for (int64_t i = 0; i < elements; ++i) sums[i] = static_cast<int64_t>(SplitMix64(static_cast<uint64_t>(i)));
  return sums;
}

void ExpectQuantizeAddEqual(StateOps& ops, TestMemory& memory, const std::vector<float>& gradient, int k,
                            size_t shift) {
  const int64_t elements = static_cast<int64_t>(gradient.size());
  const Held<float> held(memory, gradient, shift);
  std::vector<ChunkStats> stats(Chunks(elements)), expected_stats(Chunks(elements));
  for (bool first : {true, false}) {
    std::vector<int64_t> expected = EarlierSums(elements);
    const Held<int64_t> sums(memory, expected, shift);
    CpuOps().QuantizeAdd(gradient.data(), elements, k, first, expected.data(), expected_stats.data());
    ops.QuantizeAdd(held.data(), elements, k, first, sums.data(), stats.data());
    EXPECT_EQ(sums.Read(), expected);
    ExpectSame(stats, expected_stats);
  }
  std::fill(stats.begin(), stats.end(), ChunkStats());
  ops.QuantizeAdd(held.data(), elements, k, true, nullptr, stats.data());
  ExpectSame(stats, expected_stats);
  ExpectSame(held.Read(), gradient);
}

}  // namespace

void ExpectQuantizeAddEqual(StateOps& ops, TestMemory& memory) {
  ForEachSize(
      [&](int64_t size, size_t shift) { ExpectQuantizeAddEqual(ops, memory, Gradient(size, 5), 40, shift); });
}

void ExpectRoundingEdgesEqual(StateOps& ops, TestMemory& memory) {
  const std::vector<float> edges = {0.5f,           1.5f,        2.5f,        -0.5f,           -1.5f,
                                    -2.5f,          0.50000006f, 0.49999997f, 0x1p62f,         -0x1p62f,
                                    0x1p63f,        -0x1p63f,    0x1p64f,     -0x1p64f,        0x1p-149f,
                                    -0x1p-149f,     0x1.8p52f,   0.0f,        -0.0f,           0x1.000002p51f,
                                    0x1.fffffep62f, 8388607.5f,  -8388608.5f, 0x1.fffffep127f, 0x1p-126f,
                                    3.0f,           kInfinity,   -kInfinity,  0x1.234568p-70f, kNan,
                                    -kNan,          0x1.8p-126f};
  for (int k : {-kMaxExponent, -64, -1, 0, 1, 40, 63, kMaxExponent}) {
    SCOPED_TRACE(testing::Message() << "k = " << k);
    ExpectQuantizeAddEqual(ops, memory, edges, k, 0);
  }
}

void ExpectInspectAndFloatAddEqual(StateOps& ops, TestMemory& memory) {
  ForEachSize([&](int64_t size, size_t shift) {
    const std::vector<float> gradient = Gradient(size, 6);
    const Held<float> held(memory, gradient, shift);
    std::vector<ChunkStats> stats(Chunks(size)), expected_stats(Chunks(size));
    CpuOps().Inspect(gradient.data(), size, expected_stats.data());
    ops.Inspect(held.data(), size, stats.data());
    ExpectSame(stats, expected_stats);
    for (bool first : {true, false}) {
      std::vector<float> expected = Gradient(size, 7);
      const Held<float> sums(memory, expected, shift);
      CpuOps().FloatAdd(gradient.data(), size, first, expected.data(), expected_stats.data());
      ops.FloatAdd(held.data(), size, first, sums.data(), stats.data());
      ExpectSame(sums.Read(), expected);
      ExpectSame(stats, expected_stats);
    }
  });
}

void ExpectNonFiniteScansEqual(StateOps& ops, TestMemory& memory) {
  constexpr int64_t kElements = kChunkElements + 45;
  for (float bad : {kInfinity, -kInfinity, kNan, -kNan}) {
    for (int64_t where : {int64_t{0}, int64_t{1023}, kChunkElements - 1, kChunkElements, kElements - 1}) {
      std::vector<float> gradient(kElements, -2.0f), expected(kElements, 1.0f);
      gradient[where] = bad;
      const Held<float> held(memory, gradient, 0), sums(memory, expected, 0);
      std::vector<ChunkStats> stats(2), expected_stats(2);
      CpuOps().Inspect(gradient.data(), kElements, expected_stats.data());
      ops.Inspect(held.data(), kElements, stats.data());
      ExpectSame(stats, expected_stats);
      CpuOps().FloatAdd(gradient.data(), kElements, false, expected.data(), expected_stats.data());
      ops.FloatAdd(held.data(), kElements, false, sums.data(), stats.data());
      ExpectSame(sums.Read(), expected);
      ExpectSame(stats, expected_stats);
    }
  }
}

void ExpectWeightedSumsEqual(StateOps& ops, TestMemory& memory) {
  ForEachSize([&](int64_t size, size_t shift) {
    const std::vector<int64_t> values = Sums(size, 8);
    const Held<int64_t> held(memory, values, shift);
    std::vector<uint64_t> sums(Chunks(size)), expected(Chunks(size));
    CpuOps().WeightedSums(values.data(), size, expected.data());
    ops.WeightedSums(held.data(), size, sums.data());
    EXPECT_EQ(sums, expected);
  });
}

void ExpectSquareSumsEqual(StateOps& ops, TestMemory& memory) {
  const auto bits = [](const std::vector<double>& values) {
    std::vector<uint64_t> list;
    for (double value : values) list.push_back(std::bit_cast<uint64_t>(value));
    return list;
  };
  ForEachSize([&](int64_t size, size_t shift) {
    const std::vector<int64_t> values = Sums(size, 9);
    const std::vector<float> floats = Gradient(size, 9);
    const Held<int64_t> held(memory, values, shift);
    const Held<float> held_floats(memory, floats, shift);
    std::vector<double> sums(Chunks(size)), expected(Chunks(size));
    for (int k : {-kMaxExponent, 44, kMaxExponent}) {
      CpuOps().SquareSums(values.data(), size, k, expected.data());
      ops.SquareSums(held.data(), size, k, sums.data());
      EXPECT_EQ(bits(sums), bits(expected)) << "k = " << k;
    }
    CpuOps().SquareSums(floats.data(), size, expected.data());
    ops.SquareSums(held_floats.data(), size, sums.data());
    EXPECT_EQ(bits(sums), bits(expected));
  });
}

namespace {

void ExpectUpdateEqual(StateOps& ops, TestMemory& memory, OptimizerKind kind, bool exact, int64_t size,
                       size_t shift) {
  const bool adamw = kind == OptimizerKind::kAdamW;
  const UpdateArgs args = Args(kind);
  const int k = 50;
  const std::vector<int64_t> sums = Sums(size, 10);
  const std::vector<float> fast_sums = Gradient(size, 10);
  std::vector<float> p = Gradient(size, 11), m = Gradient(size, 12), v = Gradient(size, 13);
  for (float& x : v) x = std::fabs(x);
  const Held<int64_t> held_sums(memory, sums, shift);
  const Held<float> held_fast(memory, fast_sums, shift), held_p(memory, p, shift), held_m(memory, m, shift),
      held_v(memory, v, shift);
  const size_t hash_count = (adamw ? 3 : 2) * Chunks(size);
  std::vector<Hash128> hashes(hash_count), expected(hash_count);
  float* const device_v = adamw ? held_v.data() : nullptr;
  float* const host_v = adamw ? v.data() : nullptr;
  // Twice, the first time without hashes.
  for (bool hashed : {false, true}) {
    Hash128* const to = hashed ? hashes.data() : nullptr;
    if (exact) {
      CpuOps().Update(sums.data(), size, k, args, p.data(), m.data(), host_v, expected.data());
      ops.Update(held_sums.data(), size, k, args, held_p.data(), held_m.data(), device_v, to);
    } else {
      CpuOps().Update(fast_sums.data(), size, args, p.data(), m.data(), host_v, expected.data());
      ops.Update(held_fast.data(), size, args, held_p.data(), held_m.data(), device_v, to);
    }
    ExpectSame(held_p.Read(), p);
    ExpectSame(held_m.Read(), m);
    ExpectSame(held_v.Read(), v);
  }
  EXPECT_EQ(hashes, expected);
}

}  // namespace

void ExpectUpdatesEqual(StateOps& ops, TestMemory& memory) {
  ForEachSize([&](int64_t size, size_t shift) {
    for (OptimizerKind kind : {OptimizerKind::kAdamW, OptimizerKind::kSgd}) {
      for (bool exact : {true, false}) ExpectUpdateEqual(ops, memory, kind, exact, size, shift);
    }
  });
}

namespace {

void ExpectHashEqual(StateOps& ops, TestMemory& memory, const std::vector<uint16_t>& all, int64_t elements,
                     int element_bytes, size_t shift) {
  SCOPED_TRACE(testing::Message() << elements << " elements of " << element_bytes << " bytes, shifted by "
                                  << shift);
  const std::vector<uint16_t> values(all.begin(), all.begin() + elements * element_bytes / 2);
  const Held<uint16_t> held(memory, values, shift * element_bytes / 2);
  std::vector<Hash128> hashes(Chunks(elements)), expected(Chunks(elements));
  CpuOps().HashChunks(values.data(), elements, element_bytes, expected.data());
  ops.HashChunks(held.data(), elements, element_bytes, hashes.data());
  EXPECT_EQ(hashes, expected);
}

}  // namespace

void ExpectHashesEqual(StateOps& ops, TestMemory& memory) {
  std::vector<uint16_t> all(2 * (3 * kChunkElements + 333));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(SplitMix64(i));
  for (int element_bytes : {2, 4}) {
    ForEachSize(
        [&](int64_t size, size_t shift) { ExpectHashEqual(ops, memory, all, size, element_bytes, shift); });
    // Every short form, and a few stripes.
    for (int64_t size = 1; size * element_bytes <= 400; ++size) {
      for (size_t shift : {0, 1}) ExpectHashEqual(ops, memory, all, size, element_bytes, shift);
    }
  }
}

}  // namespace accrue
