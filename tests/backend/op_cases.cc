#include "tests/backend/op_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/philox.h"
#include "tests/backend/reference_ops.h"

namespace accrue {
namespace {

constexpr size_t kAlignment = 64, kGuardBytes = 256;
constexpr char kGuard = 0x5A;

// binary16 has three bits more than bf16.
double ToleranceOf(DType dtype, double f32, double bf16) {
  return dtype == DType::kF32 ? f32 : dtype == DType::kBF16 ? bf16 : bf16 / 8;
}
double DefaultTolerance(DType dtype) { return ToleranceOf(dtype, 1e-5, 1.6e-2); }

Dropout SomeDropout() { return {.probability = 0.25f, .seed = 77, .window = 3, .unit = 5, .site = 0xABCD}; }

}  // namespace

char* OpArrays::Array::contents() {
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  return memory.data() + (kAlignment - address % kAlignment) % kAlignment;
}

OpArrays::Array& OpArrays::Add(size_t size_bytes, DType dtype) {
  Array array;
  array.memory.assign(kAlignment + size_bytes + kGuardBytes, kGuard);
  array.size_bytes = size_bytes;
  array.dtype = dtype;
  arrays_.push_back(std::move(array));
  return arrays_.back();
}

Tensor OpArrays::AddRandom(DType dtype, int64_t elements, float size) {
  const uint64_t key = arrays_.size() + 1;
  Array& array = Add(elements * SizeOf(dtype), dtype);
  const Tensor tensor{array.contents(), dtype};
  for (int64_t i = 0; i < elements; ++i) {
    const PhiloxBlock words = Philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, key);
    double sum = 0;  // of four uniforms: close enough to normal, bounded
    for (uint32_t word : words) sum += word * 0x1p-32 - 0.5;
    StoreElement(tensor, i, sum * 1.7 * size);
  }
  return tensor;
}

Tensor OpArrays::In(DType dtype, int64_t elements, float size) { return AddRandom(dtype, elements, size); }

Tensor OpArrays::InOut(DType dtype, int64_t elements, float size, double tolerance) {
  const Tensor tensor = AddRandom(dtype, elements, size);
  arrays_.back().is_output = true;
  arrays_.back().tolerance = tolerance > 0 ? tolerance : DefaultTolerance(dtype);
  return tensor;
}

Tensor OpArrays::Out(DType dtype, int64_t elements, double tolerance) {
  Array& array = Add(elements * SizeOf(dtype), dtype);
  array.is_output = true;
  array.tolerance = tolerance > 0 ? tolerance : DefaultTolerance(dtype);
  const Tensor tensor{array.contents(), dtype};
  for (int64_t i = 0; i < elements; ++i) StoreElement(tensor, i, std::numeric_limits<double>::quiet_NaN());
  return tensor;
}

double* OpArrays::OutDoubles(int64_t elements, double tolerance) {
  Array& array = Add(elements * sizeof(double), DType::kF32);
  array.is_output = true;
  array.is_double = true;
  array.tolerance = tolerance > 0 ? tolerance : 1e-6;
  double* values = reinterpret_cast<double*>(array.contents());
  for (int64_t i = 0; i < elements; ++i) values[i] = std::numeric_limits<double>::quiet_NaN();
  return values;
}

const int32_t* OpArrays::Integers(int64_t elements, int32_t low, int32_t high) {
  const uint64_t key = arrays_.size() + 1;
  int32_t* values = reinterpret_cast<int32_t*>(Add(elements * sizeof(int32_t), DType::kF32).contents());
  for (int64_t i = 0; i < elements; ++i) {
    values[i] = low + static_cast<int32_t>(SplitMix64(key * 1000003 + i) % static_cast<uint64_t>(high - low));
  }
  return values;
}

std::vector<OpArrays::Output> OpArrays::Outputs() const {
  std::vector<Output> outputs;
  for (const Array& array : arrays_) {
    const char* begin = array.contents();
    const char* end = begin + array.size_bytes;
    for (size_t i = 0; i < kGuardBytes && end + i < array.memory.data() + array.memory.size(); ++i) {
      EXPECT_EQ(end[i], kGuard) << "an operation wrote beyond an array";
    }
    if (array.is_output) outputs.push_back({{begin, end}, array.dtype, array.is_double, array.tolerance});
  }
  return outputs;
}

namespace {

constexpr WeightLayout kLayouts[] = {WeightLayout::kOutIn, WeightLayout::kInOut};

std::string LayoutName(WeightLayout layout) { return layout == WeightLayout::kOutIn ? "OutIn" : "InOut"; }

struct LinearSize {
  int64_t rows, in, out;
};

std::string SizeName(const LinearSize& s) {
  return std::to_string(s.rows) + "x" + std::to_string(s.in) + "x" + std::to_string(s.out);
}

void AddLinearForward(std::vector<OpCase>& cases, LinearSize s, WeightLayout layout, bool bias, bool gelu) {
  const std::string name = "LinearForward" + SizeName(s) + LayoutName(layout) + (bias ? "Bias" : "") + (gelu ? "Gelu" : "");
  cases.push_back({name, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
    LinearForwardArgs args{.rows = s.rows, .in = s.in, .out = s.out, .layout = layout};
    args.x = arrays.In(dtype, s.rows * s.in);
    args.weight = arrays.In(dtype, s.in * s.out, 1 / std::sqrt(static_cast<float>(s.in)));
    if (bias) args.bias = arrays.In(dtype, s.out);
    if (gelu) args.gelu_input = arrays.Out(dtype, s.rows * s.out);
    args.y = arrays.Out(dtype, s.rows * s.out);
    ops.LinearForward(args);
  }});
}

// Of the same bits, on this backend.
void ExpectSame(const Tensor& first, const Tensor& again, int64_t elements) {
  EXPECT_EQ(std::memcmp(first.data, again.data, static_cast<size_t>(elements * SizeOf(first.dtype))), 0);
}

// The activation function's output, from what it read the first time. The name keeps clear of "Gelu", which
// says how many products a case has.
void AddLinearForwardAgain(std::vector<OpCase>& cases, LinearSize s, WeightLayout layout) {
  cases.push_back({"LinearForwardAgain" + SizeName(s) + LayoutName(layout),
                   [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
                     LinearForwardArgs args{.rows = s.rows, .in = s.in, .out = s.out, .layout = layout};
                     args.x = arrays.In(dtype, s.rows * s.in);
                     args.weight = arrays.In(dtype, s.in * s.out, 1 / std::sqrt(static_cast<float>(s.in)));
                     args.bias = arrays.In(dtype, s.out);
                     args.gelu_input = arrays.Out(dtype, s.rows * s.out);
                     args.y = arrays.Out(dtype, s.rows * s.out);
                     const Tensor first = args.y, again = arrays.Out(dtype, s.rows * s.out);
                     ops.LinearForward(args);
                     args.y = again;
                     args.again = true;
                     ops.LinearForward(args);
                     ExpectSame(first, again, s.rows * s.out);
                   }});
}

void AddLinearBackwardInput(std::vector<OpCase>& cases, LinearSize s, WeightLayout layout, bool accumulate, bool gelu) {
  const std::string name = "LinearBackwardInput" + SizeName(s) + LayoutName(layout) + (accumulate ? "Accumulate" : "") +
                           (gelu ? "Gelu" : "");
  cases.push_back({name, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
    LinearBackwardInputArgs args{.rows = s.rows, .in = s.in, .out = s.out, .layout = layout, .accumulate = accumulate};
    args.dy = arrays.In(dtype, s.rows * s.out);
    args.weight = arrays.In(dtype, s.in * s.out, 1 / std::sqrt(static_cast<float>(s.out)));
    if (gelu) args.gelu_input = arrays.In(dtype, s.rows * s.in, 2);
    args.dx = accumulate ? arrays.InOut(dtype, s.rows * s.in) : arrays.Out(dtype, s.rows * s.in);
    ops.LinearBackwardInput(args);
  }});
}

void AddLinearBackwardWeight(std::vector<OpCase>& cases, LinearSize s, WeightLayout layout, bool accumulate, bool bias) {
  const std::string name = "LinearBackwardWeight" + SizeName(s) + LayoutName(layout) +
                           (accumulate ? "Accumulate" : "") + (bias ? "Bias" : "");
  cases.push_back({name, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
    LinearBackwardWeightArgs args{.rows = s.rows, .in = s.in, .out = s.out, .layout = layout, .accumulate = accumulate};
    args.x = arrays.In(dtype, s.rows * s.in);
    args.dy = arrays.In(dtype, s.rows * s.out);
    args.dweight = (accumulate ? arrays.InOut(DType::kF32, s.in * s.out) : arrays.Out(DType::kF32, s.in * s.out)).f32();
    if (bias) args.dbias = arrays.Out(DType::kF32, s.out).f32();
    ops.LinearBackwardWeight(args);
  }});
}

void AddLinears(std::vector<OpCase>& cases) {
  for (WeightLayout layout : kLayouts) {
    for (LinearSize s : {LinearSize{1, 1, 1}, {1, 7, 33}, {5, 3, 2}, {67, 45, 129}, {128, 64, 192}}) {
      AddLinearForward(cases, s, layout, false, false);
      AddLinearForward(cases, s, layout, true, true);
      AddLinearBackwardInput(cases, s, layout, false, true);
      AddLinearBackwardInput(cases, s, layout, true, false);
      AddLinearBackwardWeight(cases, s, layout, false, true);
      AddLinearBackwardWeight(cases, s, layout, true, false);
    }
    for (LinearSize s : {LinearSize{5, 3, 2}, {67, 45, 129}, {128, 64, 192}, {301, 40, 1031}, {519, 263, 83}}) {
      AddLinearForwardAgain(cases, s, layout);
    }
    // Several tiles both ways, the last ones smaller.
    AddLinearForward(cases, {301, 40, 1031}, layout, true, true);
    // Whole steps of every kernel's tile, but in the last rows.
    AddLinearForward(cases, {545, 64, 640}, layout, true, false);
    AddLinearBackwardInput(cases, {301, 1031, 40}, layout, false, true);
    AddLinearBackwardWeight(cases, {40, 301, 1031}, layout, false, true);
    // Enough rows for the own kernel, with tails every way.
    for (LinearSize size : {LinearSize{519, 263, 83}, {600, 30, 260}, {513, 5, 17}}) {
      AddLinearForward(cases, size, layout, true, true);
      AddLinearForward(cases, size, layout, false, false);
      AddLinearBackwardInput(cases, size, layout, true, false);
    }
    // Long sums: a library that splits K by threads shows here.
    AddLinearForward(cases, {64, 4133, 72}, layout, true, false);
    AddLinearForward(cases, {512, 4133, 40}, layout, true, false);
    AddLinearBackwardInput(cases, {64, 72, 4133}, layout, false, false);
    AddLinearBackwardWeight(cases, {4133, 64, 64}, layout, false, true);
    AddLinearBackwardWeight(cases, {4133, 130, 66}, layout, true, true);
  }
}

void AddEmbeddings(std::vector<OpCase>& cases) {
  for (int64_t width : {1, 20, 67, 256}) {
    for (bool dropout : {false, true}) {
      for (bool position : {false, true}) {
        const std::string suffix =
            std::to_string(width) + (dropout ? "Dropout" : "") + (position ? "Position" : "");
        cases.push_back({"EmbeddingForward" + suffix, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
          EmbeddingForwardArgs args{.rows = 3 * 11, .sequence_length = 11, .width = width};
          args.tokens = arrays.Integers(args.rows, 0, 19);
          args.token_table = arrays.In(dtype, 19 * width);
          if (position) args.position_table = arrays.In(dtype, 16 * width);
          args.y = arrays.Out(dtype, args.rows * width);
          if (dropout) args.dropout = SomeDropout();
          ops.EmbeddingForward(args);
        }});
        cases.push_back({"EmbeddingBackward" + suffix, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
          EmbeddingBackwardArgs args{.rows = 3 * 11, .sequence_length = 11, .width = width, .vocabulary = 19, .context = 16};
          args.tokens = arrays.Integers(args.rows, 0, 19);
          args.dy = arrays.In(dtype, args.rows * width);
          args.dtoken = arrays.InOut(DType::kF32, 19 * width).f32();
          if (position) args.dposition = arrays.Out(DType::kF32, 16 * width).f32();
          if (dropout) args.dropout = SomeDropout();
          ops.EmbeddingBackward(args);
        }});
      }
    }
  }
}

// Many rows, few tokens: long sums, and more rows than a sort takes at once.
void AddFrequentTokens(std::vector<OpCase>& cases) {
  for (int64_t width : {13, 32}) {
    cases.push_back({"EmbeddingBackwardFrequent" + std::to_string(width), [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
      EmbeddingBackwardArgs args{.rows = 2 * 807, .sequence_length = 807, .width = width, .vocabulary = 9, .context = 807};
      args.tokens = arrays.Integers(args.rows, 0, 7);
      args.dy = arrays.In(dtype, args.rows * width);
      args.dtoken = arrays.InOut(DType::kF32, args.vocabulary * width).f32();
      args.dposition = arrays.Out(DType::kF32, args.context * width).f32();
      args.dropout = SomeDropout();
      ops.EmbeddingBackward(args);
    }});
  }
}

enum class Delta { kNone, kPlain, kDropout, kInPlace };

void AddNormForward(std::vector<OpCase>& cases, NormKind kind, int64_t rows, int64_t width, Delta delta) {
  static constexpr const char* kDeltaNames[] = {"", "Delta", "DeltaDropout", "DeltaInPlace"};
  const std::string name = std::string(kind == NormKind::kLayerNorm ? "LayerNorm" : "RmsNorm") + "Forward" +
                           std::to_string(rows) + "x" + std::to_string(width) + kDeltaNames[static_cast<int>(delta)];
  cases.push_back({name, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
    const bool layer_norm = kind == NormKind::kLayerNorm;
    NormForwardArgs args{.rows = rows, .width = width, .kind = kind, .epsilon = 1e-5f};
    args.x = delta == Delta::kInPlace ? arrays.InOut(dtype, rows * width) : arrays.In(dtype, rows * width);
    if (delta != Delta::kNone) {
      args.delta = arrays.In(dtype, rows * width);
      args.sum = delta == Delta::kInPlace ? args.x : arrays.Out(dtype, rows * width);
    }
    if (delta == Delta::kDropout) args.dropout = SomeDropout();
    args.gamma = arrays.In(dtype, width);
    if (layer_norm) args.beta = arrays.In(dtype, width);
    args.y = arrays.Out(dtype, rows * width);
    // In bf16 a sum at a tie may round the other way, and the row's statistics follow it.
    const double tolerance = ToleranceOf(dtype, 1e-5, 1e-2);
    if (layer_norm) args.mean = arrays.Out(DType::kF32, rows, tolerance).f32();
    args.rstd = arrays.Out(DType::kF32, rows, tolerance).f32();
    ops.NormForward(args);
  }});
}

// The norm of a sum that was stored, as of the one that was just added up.
void AddNormForwardAgain(std::vector<OpCase>& cases, NormKind kind, int64_t rows, int64_t width) {
  const std::string name = std::string(kind == NormKind::kLayerNorm ? "LayerNorm" : "RmsNorm") +
                           "ForwardAgain" + std::to_string(rows) + "x" + std::to_string(width);
  cases.push_back({name, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
                     const bool layer_norm = kind == NormKind::kLayerNorm;
                     const double tolerance = ToleranceOf(dtype, 1e-5, 1e-2);  // as above
                     NormForwardArgs args{.rows = rows, .width = width, .kind = kind, .epsilon = 1e-5f};
                     args.x = arrays.In(dtype, rows * width);
                     args.delta = arrays.In(dtype, rows * width);
                     args.sum = arrays.Out(dtype, rows * width);
                     args.dropout = SomeDropout();
                     args.gamma = arrays.In(dtype, width);
                     if (layer_norm) args.beta = arrays.In(dtype, width);
                     const auto give_outputs = [&] {
                       args.y = arrays.Out(dtype, rows * width);
                       if (layer_norm) args.mean = arrays.Out(DType::kF32, rows, tolerance).f32();
                       args.rstd = arrays.Out(DType::kF32, rows, tolerance).f32();
                     };
                     give_outputs();
                     ops.NormForward(args);
                     const NormForwardArgs first = args;
                     give_outputs();
                     args.x = first.sum;
                     args.delta = args.sum = {};
                     args.dropout = {};
                     ops.NormForward(args);
                     ExpectSame(first.y, args.y, rows * width);
                     if (layer_norm) ExpectSame({first.mean, DType::kF32}, {args.mean, DType::kF32}, rows);
                     ExpectSame({first.rstd, DType::kF32}, {args.rstd, DType::kF32}, rows);
                   }});
}

void AddNormBackward(std::vector<OpCase>& cases, NormKind kind, int64_t rows, int64_t width, bool first, Delta delta) {
  const std::string name = std::string(kind == NormKind::kLayerNorm ? "LayerNorm" : "RmsNorm") + "Backward" +
                           std::to_string(rows) + "x" + std::to_string(width) + (first ? "First" : "") +
                           (delta == Delta::kNone ? "" : delta == Delta::kPlain ? "Delta" : "DeltaDropout");
  cases.push_back({name, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
    const bool layer_norm = kind == NormKind::kLayerNorm;
    NormBackwardArgs args{.rows = rows, .width = width, .kind = kind, .first = first};
    args.x = arrays.In(dtype, rows * width);
    args.gamma = arrays.In(dtype, width);
    args.dy = arrays.In(dtype, rows * width);
    args.mean = arrays.In(DType::kF32, rows, 0.1f).f32();
    float* rstd = arrays.In(DType::kF32, rows, 0.2f).f32();
    for (int64_t r = 0; r < rows; ++r) rstd[r] += 1.5f;
    args.rstd = rstd;
    args.dresidual = first ? arrays.Out(dtype, rows * width) : arrays.InOut(dtype, rows * width);
    if (delta != Delta::kNone) args.ddelta = arrays.Out(dtype, rows * width);
    if (delta == Delta::kDropout) args.dropout = SomeDropout();
    args.dgamma = arrays.Out(DType::kF32, width).f32();
    if (layer_norm) args.dbeta = arrays.Out(DType::kF32, width).f32();
    ops.NormBackward(args);
  }});
}

void AddNorms(std::vector<OpCase>& cases) {
  for (NormKind kind : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
    for (auto [rows, width] : {std::pair<int64_t, int64_t>{1, 1}, {3, 33}, {131, 67}, {200, 256}}) {
      for (Delta delta : {Delta::kNone, Delta::kPlain, Delta::kDropout, Delta::kInPlace}) {
        AddNormForward(cases, kind, rows, width, delta);
        if (delta == Delta::kInPlace) continue;
        for (bool first : {false, true}) AddNormBackward(cases, kind, rows, width, first, delta);
      }
    }
    for (int64_t width : {33, 256, 2056}) AddNormForwardAgain(cases, kind, 67, width);
    // Models' widths, which kernels hold in registers, and one that is too wide for that.
    for (auto [rows, width] : {std::pair<int64_t, int64_t>{133, 768}, {65, 1024}, {5, 2048}, {67, 2056}}) {
      AddNormForward(cases, kind, rows, width, Delta::kDropout);
      AddNormBackward(cases, kind, rows, width, false, Delta::kDropout);
    }
  }
}

void AddRopes(std::vector<OpCase>& cases) {
  // A gap of 8: rows that can be moved 16 bytes at a time.
  for (auto [head_size, gap] : {std::pair<int64_t, int64_t>{2, 5}, {6, 5}, {40, 5}, {64, 5}, {48, 8}, {128, 8}}) {
    for (bool inverse : {false, true}) {
      cases.push_back({"Rope" + std::to_string(head_size) + (inverse ? "Inverse" : ""),
                       [=, head_size = head_size, gap = gap](ModelOps& ops, OpArrays& arrays, DType dtype) {
        RopeArgs args{.rows = 2 * 13, .sequence_length = 13, .heads = 3, .head_size = head_size,
                      .stride = 3 * head_size + gap, .inverse = inverse};
        args.x = arrays.InOut(dtype, args.rows * args.stride);
        args.cosine = arrays.In(DType::kF32, 13 * head_size / 2).f32();
        args.sine = arrays.In(DType::kF32, 13 * head_size / 2).f32();
        ops.Rope(args);
      }});
    }
  }
}

struct AttentionSize {
  int64_t batch, sequence_length, heads, kv_heads, head_size;
  // Elements after each row of q, k and v, and of the output.
  int64_t gap = 3, out_gap = 1;
  int64_t stride() const { return (heads + 2 * kv_heads) * head_size + gap; }
  int64_t out_stride() const { return heads * head_size + out_gap; }
};

// q, k and v side by side in one matrix, as a model has them, with a gap after each row.
AttentionArgs MakeAttention(const AttentionSize& s, bool dropout, DType dtype, Tensor qkv) {
  AttentionArgs args{.batch = s.batch, .sequence_length = s.sequence_length, .heads = s.heads, .kv_heads = s.kv_heads,
                     .head_size = s.head_size};
  args.q_stride = args.k_stride = args.v_stride = s.stride();
  args.out_stride = s.out_stride();
  const auto at = [&](int64_t element) { return Tensor{static_cast<char*>(qkv.data) + element * SizeOf(dtype), dtype}; };
  args.q = at(0);
  args.k = at(s.heads * s.head_size);
  args.v = at((s.heads + s.kv_heads) * s.head_size);
  if (dropout) args.dropout = SomeDropout();
  return args;
}

void AddAttention(std::vector<OpCase>& cases, AttentionSize s, bool dropout) {
  const std::string suffix = std::to_string(s.batch) + "x" + std::to_string(s.sequence_length) + "h" +
                             std::to_string(s.heads) + "kv" + std::to_string(s.kv_heads) + "s" +
                             std::to_string(s.head_size) + (dropout ? "Dropout" : "");
  const int64_t rows = s.batch * s.sequence_length, stride = s.stride();
  const int64_t out_elements = rows * s.out_stride(), statistics = s.batch * s.heads * s.sequence_length;
  cases.push_back({"AttentionForward" + suffix, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
    AttentionArgs args = MakeAttention(s, dropout, dtype, arrays.In(dtype, rows * stride, 1.5f));
    args.out = arrays.Out(dtype, out_elements);
    args.log_sum_exp = arrays.Out(DType::kF32, statistics).f32();
    ops.AttentionForward(args);
  }});
  cases.push_back({"AttentionBackward" + suffix, [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
    AttentionArgs args = MakeAttention(s, dropout, dtype, arrays.In(dtype, rows * stride, 1.5f));
    // What the forward pass leaves, the same for every implementation.
    args.out = arrays.In(dtype, out_elements);
    args.log_sum_exp = arrays.In(DType::kF32, statistics).f32();
    CreateReferenceOps()->AttentionForward(args);
    args.dout = arrays.In(dtype, out_elements);
    const Tensor gradients = arrays.Out(dtype, rows * stride, ToleranceOf(dtype, 3e-5, 3e-2));
    const AttentionArgs places = MakeAttention(s, dropout, dtype, gradients);
    args.dq = places.q;
    args.dk = places.k;
    args.dv = places.v;
    ops.AttentionBackward(args);
  }});
}

void AddAttentions(std::vector<OpCase>& cases) {
  for (bool dropout : {false, true}) {
    AddAttention(cases, {1, 1, 1, 1, 8}, dropout);
    AddAttention(cases, {2, 7, 2, 1, 3}, dropout);
    AddAttention(cases, {2, 64, 3, 3, 32}, dropout);
    AddAttention(cases, {1, 65, 4, 2, 64}, dropout);
    AddAttention(cases, {2, 150, 6, 2, 20}, dropout);
    AddAttention(cases, {1, 192, 2, 2, 80}, dropout);
    AddAttention(cases, {1, 97, 2, 1, 33}, dropout);
    // Rows that can be moved 16 bytes at a time.
    AddAttention(cases, {2, 150, 2, 1, 64, 8, 16}, dropout);
    AddAttention(cases, {1, 257, 1, 1, 128, 0, 0}, dropout);
  }
}

void AddRest(std::vector<OpCase>& cases) {
  for (int64_t hidden : {1, 37, 128}) {
    const int64_t rows = 19, stride = 2 * hidden + 3;
    const auto up_of = [hidden](Tensor gate) {
      return Tensor{static_cast<char*>(gate.data) + hidden * SizeOf(gate.dtype), gate.dtype};
    };
    cases.push_back({"SwiGluForward" + std::to_string(hidden), [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
      SwiGluArgs args{.rows = rows, .hidden = hidden, .gate_stride = stride};
      args.gate = arrays.In(dtype, rows * stride, 4);
      args.up = up_of(args.gate);
      args.y = arrays.Out(dtype, rows * hidden);
      ops.SwiGluForward(args);
    }});
    cases.push_back({"SwiGluBackward" + std::to_string(hidden), [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
      SwiGluArgs args{.rows = rows, .hidden = hidden, .gate_stride = stride};
      args.gate = arrays.In(dtype, rows * stride, 4);
      args.up = up_of(args.gate);
      args.dy = arrays.In(dtype, rows * hidden);
      args.dgate = arrays.Out(dtype, rows * stride);
      args.dup = up_of(args.dgate);
      ops.SwiGluBackward(args);
    }});
  }
  for (int64_t vocabulary : {1, 3, 50, 1027, 8192, 50257}) {
    for (bool gradient : {false, true}) {
      cases.push_back({"CrossEntropy" + std::to_string(vocabulary) + (gradient ? "Gradient" : ""),
                       [=](ModelOps& ops, OpArrays& arrays, DType dtype) {
        CrossEntropyArgs args{.rows = vocabulary > 10000 ? 5 : 21, .vocabulary = vocabulary, .write_gradient = gradient};
        args.logits = arrays.InOut(dtype, args.rows * vocabulary, 5);
        args.targets = arrays.Integers(args.rows, -1, static_cast<int32_t>(vocabulary));
        args.losses = arrays.OutDoubles(args.rows);
        ops.CrossEntropy(args);
      }});
    }
  }
  // The gradient of a scaled loss; bf16 has none.
  cases.push_back({"CrossEntropy1027Scaled", [](ModelOps& ops, OpArrays& arrays, DType dtype) {
    CrossEntropyArgs args{.rows = 21, .vocabulary = 1027, .gradient_scale = dtype == DType::kBF16 ? 1.0f : 0x1p14f};
    args.logits = arrays.InOut(dtype, args.rows * args.vocabulary, 5);
    args.targets = arrays.Integers(args.rows, -1, static_cast<int32_t>(args.vocabulary));
    args.losses = arrays.OutDoubles(args.rows);
    ops.CrossEntropy(args);
  }});
  for (const DType to : {DType::kBF16, DType::kF16}) {
    cases.push_back({to == DType::kBF16 ? "ConvertToBf16" : "ConvertToF16", [to](ModelOps& ops, OpArrays& arrays, DType) {
      const int64_t elements = 65536 + 77;
      const Tensor from = arrays.In(DType::kF32, elements);
      for (int i = 0; i < 64; ++i) {  // halfway cases among them, of normal and subnormal numbers
        from.f32()[i] = 1.0f + static_cast<float>(i) * 0x1p-9f;
        from.f32()[64 + i] = 1.0f + static_cast<float>(i) * 0x1p-12f;
        from.f32()[128 + i] = -static_cast<float>(i) * 0x1p-26f;
      }
      from.f32()[192] = std::numeric_limits<float>::infinity();
      from.f32()[193] = std::numeric_limits<float>::max();
      from.f32()[194] = 1e-40f;
      from.f32()[195] = 65519.99f;  // rounds to 65504
      from.f32()[196] = -65520.0f;  // to -infinity
      ops.Convert(from.f32(), arrays.Out(to, elements, 1e-30), elements);
    }});
  }
}

}  // namespace

const std::vector<OpCase>& OpCases() {
  static const std::vector<OpCase>& cases = *[] {
    auto* all = new std::vector<OpCase>;
    AddLinears(*all);
    AddEmbeddings(*all);
    AddFrequentTokens(*all);
    AddNorms(*all);
    AddRopes(*all);
    AddAttentions(*all);
    AddRest(*all);
    return all;
  }();
  return cases;
}

std::vector<OpArrays::Output> RunCase(const OpCase& op, ModelOps& ops, DType dtype) {
  OpArrays arrays;
  op.run(ops, arrays, dtype);
  return arrays.Outputs();
}

namespace {

std::vector<double> Values(const OpArrays::Output& output) {
  const size_t size = output.is_double ? 8 : SizeOf(output.dtype);
  std::vector<double> values(output.bytes.size() / size);
  for (size_t i = 0; i < values.size(); ++i) {
    if (output.is_double) {
      std::memcpy(&values[i], output.bytes.data() + 8 * i, 8);
    } else {
      values[i] = LoadElement({const_cast<char*>(output.bytes.data()), output.dtype}, i);
    }
  }
  return values;
}

}  // namespace

void ExpectNear(const OpArrays::Output& expected, const OpArrays::Output& actual) {
  const std::vector<double> want = Values(expected), have = Values(actual);
  double largest = 0;
  for (double value : want) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  for (size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(want[i])) {  // gaps between rows stay as they were
      ASSERT_EQ(std::isnan(want[i]), std::isnan(have[i])) << "element " << i;
      ASSERT_TRUE(std::isnan(want[i]) || want[i] == have[i]) << "element " << i;
    } else {
      ASSERT_NEAR(have[i], want[i], expected.tolerance * largest) << "element " << i;
    }
  }
}

}  // namespace accrue
