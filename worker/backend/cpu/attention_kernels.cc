// Attention by blocks, in the spirit of FlashAttention (Dao et al., 2022): no T x T matrix, the row's log-sum-exp
// saved for the backward pass. Scores are held transposed, a query per lane: softmax then needs no sum across
// lanes, and K and V are read as they lie.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/backend/cpu/attention_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target:
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "hwy/contrib/math/math-inl.h"
#include "worker/backend/cpu/attention_bf16.h"
#include "worker/backend/cpu/dropout-inl.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/simd-inl.h"
#include "worker/backend/cpu/small_gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {
namespace {

constexpr int64_t kBlock = kAttentionBlock;
// On the diagonal, products skip what is masked by steps of this many queries or keys.
constexpr int64_t kGranule = 16;
static_assert(kGranule % kLanes == 0 && kBlock % kGranule == 0);

int64_t PaddedHead(int64_t head_size) { return (head_size + 15) / 16 * 16; }

// Where a block of keys meets a block of queries.
struct BlockPair {
  int64_t first_query = 0, queries = 0;
  int64_t first_key = 0, keys = 0;
  bool diagonal() const { return first_query == first_key; }
  // Keys that some query of lanes [lane, lane + width) sees.
  int64_t VisibleKeys(int64_t lane, int64_t width) const {
    return diagonal() ? std::min(keys, lane + width) : keys;
  }
};

// c[keys, kBlock] = a[keys, depth] b[depth, kBlock], where not masked in whole granules.
void ScoreProduct(const BlockPair& pair, const float* a, int64_t a_stride, int64_t depth, const float* b, float* c) {
  const int64_t step = pair.diagonal() ? kGranule : kBlock;
  for (int64_t key = 0; key < pair.keys; key += step) {
    const int64_t lane = pair.diagonal() ? key : 0;
    SmallGemm({.m = std::min(step, pair.keys - key), .n = kBlock - lane, .k = depth,
               .a = a + key * a_stride, .a_row = a_stride, .a_column = 1, .b = b + lane, .b_stride = kBlock,
               .c = c + key * kBlock + lane, .c_stride = kBlock});
  }
}

// c[keys, width] += scores[keys, kBlock] b[queries, width]
void AddByKeys(const BlockPair& pair, const float* scores, const float* b, int64_t width, float* c) {
  const int64_t step = pair.diagonal() ? kGranule : kBlock;
  for (int64_t key = 0; key < pair.keys; key += step) {
    const int64_t query = pair.diagonal() ? key : 0;
    SmallGemm({.m = std::min(step, pair.keys - key), .n = width, .k = pair.queries - query,
               .a = scores + key * kBlock + query, .a_row = kBlock, .a_column = 1,
               .b = b + query * width, .b_stride = width, .c = c + key * width, .c_stride = width,
               .accumulate = true});
  }
}

// c[queries, width] += transposed scores[keys, kBlock] b[keys, width]
void AddByQueries(const BlockPair& pair, const float* scores, const float* b, int64_t width, float* c) {
  const int64_t step = pair.diagonal() ? kGranule : kBlock;
  for (int64_t query = 0; query < pair.queries; query += step) {
    SmallGemm({.m = std::min(step, pair.queries - query), .n = width, .k = pair.VisibleKeys(query, step),
               .a = scores + query, .a_row = 1, .a_column = kBlock, .b = b, .b_stride = width,
               .c = c + query * width, .c_stride = width, .accumulate = true});
  }
}

// to[rows, width] = from[rows, columns] as binary32, zero beyond `columns`.
template <typename T>
void CopyRows(const T* from, int64_t from_stride, int64_t rows, int64_t columns, float* to, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    ForVectors(columns, [&](int64_t i, int64_t n) HWY_ATTR {
      Store(LoadN(from + r * from_stride + i, n), to + r * width + i);
    });
    const int64_t written = (columns + kLanes - 1) / kLanes * kLanes;
    std::fill(to + r * width + written, to + (r + 1) * width, 0.0f);
  }
}

// The factors of a pair's probabilities, transposed: factors[key * kBlock + query].
void PairFactors(const AttentionArgs& args, int64_t sequence, int64_t head, const BlockPair& pair, float* factors,
                 float* scratch) {
  const int64_t T = args.sequence_length;
  float* rows = scratch + DropoutScratch(kBlock);
  for (int64_t q = 0; q < pair.queries; ++q) {
    const int64_t element = ((sequence * args.heads + head) * T + pair.first_query + q) * T + pair.first_key;
    const float* row = DropoutFactors(args.dropout, element, pair.keys, scratch);
    std::copy(row, row + pair.keys, rows + q * kBlock);
  }
  PackTransposed(rows, kBlock, pair.queries, pair.keys, 1.0f, factors, kBlock);
}

// Lanes of queries lane, lane + 1, ... that see `key`; only asked on the diagonal.
HWY_INLINE hn::Mask<DF> Sees(int64_t lane, int64_t key) {
  return hn::Ge(hn::Iota(DF(), static_cast<float>(lane)), hn::Set(DF(), static_cast<float>(key)));
}

struct Softmax {
  float* maximum;  // [kBlock] so far
  float* sum;      // [kBlock] of exp(score - maximum)
  float* rescale;  // [kBlock] what this block's maximum does to earlier sums
};

// Scores become exp(score - maximum), zero where masked.
void SoftmaxBlock(const BlockPair& pair, const Softmax& state, float* scores) {
  const DF d;
  const VF lowest = hn::Set(d, -HUGE_VALF);
  for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
    const int64_t keys = pair.VisibleKeys(lane, kLanes);
    const int64_t unmasked = pair.diagonal() ? std::min(keys, lane + 1) : keys;
    float* column = scores + lane;
    const VF before = Load(state.maximum + lane);
    VF maximum = before, odd = before;  // two chains: the latency of one hides behind the other
    for (int64_t key = 0; key + 1 < unmasked; key += 2) {
      maximum = hn::Max(maximum, Load(column + key * kBlock));
      odd = hn::Max(odd, Load(column + (key + 1) * kBlock));
    }
    if (unmasked % 2 == 1) odd = hn::Max(odd, Load(column + (unmasked - 1) * kBlock));
    maximum = hn::Max(maximum, odd);
    for (int64_t key = unmasked; key < keys; ++key) {
      maximum = hn::Max(maximum, hn::IfThenElse(Sees(lane, key), Load(column + key * kBlock), lowest));
    }
    const VF rescale = Exp(hn::Sub(before, maximum));
    VF sum = hn::Mul(Load(state.sum + lane), rescale);
    for (int64_t key = 0; key < keys; ++key) {
      VF e = Exp(hn::Sub(Load(column + key * kBlock), maximum));
      if (key >= unmasked) e = hn::IfThenElseZero(Sees(lane, key), e);
      Store(e, column + key * kBlock);
      sum = hn::Add(sum, e);
    }
    const int64_t granule_keys = pair.VisibleKeys(lane / kGranule * kGranule, kGranule);
    for (int64_t key = keys; key < granule_keys; ++key) Store(hn::Zero(d), column + key * kBlock);
    Store(maximum, state.maximum + lane);
    Store(rescale, state.rescale + lane);
    Store(sum, state.sum + lane);
  }
}

void MultiplyPair(const BlockPair& pair, const float* factors, float* scores) {
  for (int64_t key = 0; key < pair.keys; ++key) {
    const int64_t lane = pair.diagonal() ? key / kGranule * kGranule : 0;
    for (int64_t i = lane; i < kBlock; i += kLanes) {
      float* at = scores + key * kBlock + i;
      Store(hn::Mul(Load(at), Load(factors + key * kBlock + i)), at);
    }
  }
}

template <typename T>
void AttentionForwardOf(const AttentionArgs& args, int64_t sequence, int64_t head, int64_t block, float* scratch) {
  const DF d;
  const int64_t T_ = args.sequence_length, S = args.head_size, padded = PaddedHead(S);
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  float* query = scratch;                      // [S, kBlock], scaled
  float* output = query + padded * kBlock;     // [S, kBlock]
  float* scores = output + padded * kBlock;    // [kBlock, kBlock]
  float* key_rows = scores + kBlock * kBlock;  // [kBlock, padded]
  float* value_rows = key_rows + kBlock * padded;
  float* rows = value_rows + kBlock * padded;
  const Softmax state{rows, rows + kBlock, rows + 2 * kBlock};
  float* factors = rows + 4 * kBlock;
  float* factor_scratch = factors + kBlock * kBlock;

  BlockPair pair{.first_query = block * kBlock};
  pair.queries = std::min(kBlock, T_ - pair.first_query);
  const int64_t first_row = sequence * T_ + pair.first_query;
  const float scale = 1.0f / std::sqrt(static_cast<float>(S));
  if (pair.queries < kBlock) std::fill(query, query + S * kBlock, 0.0f);
  PackTransposed(static_cast<const T*>(args.q.data) + first_row * args.q_stride + head * S, args.q_stride,
                 pair.queries, S, scale, query, kBlock);
  std::fill(output, output + S * kBlock, 0.0f);
  std::fill(state.maximum, state.maximum + kBlock, -HUGE_VALF);
  std::fill(state.sum, state.sum + kBlock, 0.0f);

  for (int64_t key_block = 0; key_block <= block; ++key_block) {
    pair.first_key = key_block * kBlock;
    pair.keys = std::min(kBlock, T_ - pair.first_key);
    const int64_t key_row = sequence * T_ + pair.first_key;
    CopyRows(static_cast<const T*>(args.k.data) + key_row * args.k_stride + kv_head * S, args.k_stride, pair.keys, S,
             key_rows, padded);
    CopyRows(static_cast<const T*>(args.v.data) + key_row * args.v_stride + kv_head * S, args.v_stride, pair.keys, S,
             value_rows, padded);
    ScoreProduct(pair, key_rows, padded, S, query, scores);
    SoftmaxBlock(pair, state, scores);
    if (args.dropout.probability > 0) {
      PairFactors(args, sequence, head, pair, factors, factor_scratch);
      MultiplyPair(pair, factors, scores);
    }
    for (int64_t i = 0; i < S && key_block > 0; ++i) {
      for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
        float* at = output + i * kBlock + lane;
        Store(hn::Mul(Load(at), Load(state.rescale + lane)), at);
      }
    }
    // output += transposed values by probabilities, skipping masked granules.
    const int64_t step = pair.diagonal() ? kGranule : kBlock;
    for (int64_t lane = 0; lane < kBlock; lane += step) {
      SmallGemm({.m = S, .n = step, .k = pair.VisibleKeys(lane, step), .a = value_rows, .a_row = 1,
                 .a_column = padded, .b = scores + lane, .b_stride = kBlock, .c = output + lane, .c_stride = kBlock,
                 .accumulate = true});
    }
  }

  for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
    const VF sum = Load(state.sum + lane);
    const VF inverse = hn::Div(hn::Set(d, 1.0f), sum);
    for (int64_t i = 0; i < S; ++i) {
      float* at = output + i * kBlock + lane;
      Store(hn::Mul(Load(at), inverse), at);
    }
    if (lane >= pair.queries) continue;
    float* log_sum_exp = args.log_sum_exp + (sequence * args.heads + head) * T_ + pair.first_query + lane;
    StoreN(hn::Add(Load(state.maximum + lane), hn::Log(d, sum)), log_sum_exp, std::min(kLanes, pair.queries - lane));
  }
  // value_rows has served: it takes the output the right way round.
  PackTransposed(output, kBlock, S, pair.queries, 1.0f, value_rows, padded);
  T* out = static_cast<T*>(args.out.data) + first_row * args.out_stride + head * S;
  for (int64_t q = 0; q < pair.queries; ++q) {
    ForVectors(S, [&](int64_t i, int64_t n) HWY_ATTR {
      StoreN(LoadN(value_rows + q * padded + i, n), out + q * args.out_stride + i, n);
    });
  }
}

void AttentionForwardBlock(const AttentionArgs& args, int64_t sequence, int64_t head, int64_t block, float* scratch) {
  WithElement(args.q.dtype, [&](auto* type) HWY_ATTR {
    AttentionForwardOf<std::remove_pointer_t<decltype(type)>>(args, sequence, head, block, scratch);
  });
}

// What the backward pass of one head keeps in scratch. Rows beyond the sequence are zero.
struct BackwardScratch {
  int64_t rows, padded;      // the sequence and the head, rounded up
  float* query_columns;      // [blocks][S, kBlock], scaled
  float* gradient_columns;   // [blocks][S, kBlock] of dout
  float* query_rows;         // [rows, padded]
  float* gradient_rows;      // [rows, padded] of dout
  float* dquery;             // [rows, padded]
  float* key_rows;           // [kBlock, padded]
  float* value_rows;         // [kBlock, padded]
  float* dkey;               // [kBlock, padded]
  float* dvalue;             // [kBlock, padded]
  float* probabilities;      // [kBlock, kBlock]
  float* dscores;            // [kBlock, kBlock]
  float* factors;            // [kBlock, kBlock]
  float* log_sum_exp;        // [rows]
  float* row_products;       // [rows] sums of dout * out
  float* factor_scratch;     // DropoutScratch(kBlock) + [kBlock, kBlock]
};

// Cuts `memory`; returns the floats that it takes.
int64_t CutBackwardScratch(const AttentionArgs& args, float* memory, BackwardScratch* s) {
  s->rows = (args.sequence_length + kBlock - 1) / kBlock * kBlock;
  s->padded = PaddedHead(args.head_size);
  int64_t used = 0;
  const auto take = [&](int64_t floats) {
    float* at = memory == nullptr ? nullptr : memory + used;
    used += (floats + 15) / 16 * 16;
    return at;
  };
  for (float** rows : {&s->query_columns, &s->gradient_columns, &s->query_rows, &s->gradient_rows, &s->dquery}) {
    *rows = take(s->rows * s->padded);
  }
  for (float** rows : {&s->key_rows, &s->value_rows, &s->dkey, &s->dvalue}) *rows = take(kBlock * s->padded);
  for (float** square : {&s->probabilities, &s->dscores, &s->factors}) *square = take(kBlock * kBlock);
  s->log_sum_exp = take(s->rows);
  s->row_products = take(s->rows);
  s->factor_scratch = take(DropoutScratch(kBlock) + kBlock * kBlock);
  return used;
}

template <typename T>
void PrepareBackward(const AttentionArgs& args, int64_t sequence, int64_t head, const BackwardScratch& s) {
  const int64_t T_ = args.sequence_length, S = args.head_size, first_row = sequence * T_;
  const T* q = static_cast<const T*>(args.q.data) + first_row * args.q_stride + head * S;
  const T* dout = static_cast<const T*>(args.dout.data) + first_row * args.out_stride + head * S;
  const T* out = static_cast<const T*>(args.out.data) + first_row * args.out_stride + head * S;
  const float scale = 1.0f / std::sqrt(static_cast<float>(S));
  CopyRows(q, args.q_stride, T_, S, s.query_rows, s.padded);
  CopyRows(dout, args.out_stride, T_, S, s.gradient_rows, s.padded);
  std::fill(s.query_rows + T_ * s.padded, s.query_rows + s.rows * s.padded, 0.0f);
  std::fill(s.gradient_rows + T_ * s.padded, s.gradient_rows + s.rows * s.padded, 0.0f);
  std::fill(s.dquery, s.dquery + s.rows * s.padded, 0.0f);
  for (int64_t row = 0; row < s.rows; row += kBlock) {
    PackTransposed(s.query_rows + row * s.padded, s.padded, kBlock, S, scale, s.query_columns + row * s.padded, kBlock);
    PackTransposed(s.gradient_rows + row * s.padded, s.padded, kBlock, S, 1.0f, s.gradient_columns + row * s.padded,
                   kBlock);
  }
  const float* log_sum_exp = args.log_sum_exp + (sequence * args.heads + head) * T_;
  std::copy(log_sum_exp, log_sum_exp + T_, s.log_sum_exp);
  std::fill(s.log_sum_exp + T_, s.log_sum_exp + s.rows, 0.0f);
  std::fill(s.row_products + T_, s.row_products + s.rows, 0.0f);
  for (int64_t r = 0; r < T_; ++r) {
    s.row_products[r] = SumVectors(S, [&](int64_t i, int64_t n) HWY_ATTR {
      return hn::Mul(LoadN(dout + r * args.out_stride + i, n), LoadN(out + r * args.out_stride + i, n));
    });
  }
}

// probabilities: scores in; what multiplies dout for dV out. dscores: gradient of the probabilities in; of the
// scores out. Both zero where masked.
void ScoreGradients(const BlockPair& pair, const BackwardScratch& s, bool dropout) {
  for (int64_t key = 0; key < pair.keys; ++key) {
    const int64_t granule = pair.diagonal() ? key / kGranule * kGranule : 0;
    for (int64_t lane = granule; lane < kBlock; lane += kLanes) {
      const int64_t at = key * kBlock + lane;
      VF p = Exp(hn::Sub(Load(s.probabilities + at), Load(s.log_sum_exp + pair.first_query + lane)));
      if (pair.diagonal() && lane < key) p = hn::IfThenElseZero(Sees(lane, key), p);
      VF gradient = Load(s.dscores + at), kept = p;
      if (dropout) {
        const VF factor = Load(s.factors + at);
        gradient = hn::Mul(gradient, factor);
        kept = hn::Mul(p, factor);
      }
      const VF product = Load(s.row_products + pair.first_query + lane);
      Store(hn::Mul(p, hn::Sub(gradient, product)), s.dscores + at);
      Store(kept, s.probabilities + at);
    }
  }
}

// to[rows, stride] = scale * from[rows, padded]
template <typename T>
void WriteRows(const float* from, int64_t padded, int64_t rows, int64_t columns, float scale, T* to, int64_t stride) {
  const VF factor = hn::Set(DF(), scale);
  for (int64_t r = 0; r < rows; ++r) {
    ForVectors(columns, [&](int64_t i, int64_t n) HWY_ATTR {
      StoreN(hn::Mul(LoadN(from + r * padded + i, n), factor), to + r * stride + i, n);
    });
  }
}

template <typename T>
void AttentionBackwardOf(const AttentionArgs& args, int64_t sequence, int64_t head, float* group_gradients,
                         float* scratch) {
  BackwardScratch s;
  CutBackwardScratch(args, scratch, &s);
  PrepareBackward<T>(args, sequence, head, s);
  const int64_t T_ = args.sequence_length, S = args.head_size, padded = s.padded, first_row = sequence * T_;
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  const float scale = 1.0f / std::sqrt(static_cast<float>(S));
  const bool dropout = args.dropout.probability > 0;
  for (int64_t first_key = 0; first_key < T_; first_key += kBlock) {
    BlockPair pair{.first_key = first_key, .keys = std::min(kBlock, T_ - first_key)};
    const int64_t key_row = first_row + first_key;
    CopyRows(static_cast<const T*>(args.k.data) + key_row * args.k_stride + kv_head * S, args.k_stride, pair.keys, S,
             s.key_rows, padded);
    CopyRows(static_cast<const T*>(args.v.data) + key_row * args.v_stride + kv_head * S, args.v_stride, pair.keys, S,
             s.value_rows, padded);
    std::fill(s.dkey, s.dkey + kBlock * padded, 0.0f);
    std::fill(s.dvalue, s.dvalue + kBlock * padded, 0.0f);
    for (pair.first_query = first_key; pair.first_query < T_; pair.first_query += kBlock) {
      pair.queries = std::min(kBlock, T_ - pair.first_query);
      const int64_t from = pair.first_query * padded;
      ScoreProduct(pair, s.key_rows, padded, S, s.query_columns + from, s.probabilities);
      ScoreProduct(pair, s.value_rows, padded, S, s.gradient_columns + from, s.dscores);
      if (dropout) PairFactors(args, sequence, head, pair, s.factors, s.factor_scratch);
      ScoreGradients(pair, s, dropout);
      AddByKeys(pair, s.probabilities, s.gradient_rows + from, padded, s.dvalue);
      AddByKeys(pair, s.dscores, s.query_rows + from, padded, s.dkey);
      AddByQueries(pair, s.dscores, s.key_rows, padded, s.dquery + from);
    }
    if (group_gradients != nullptr) {
      float* to = group_gradients + ((sequence * args.heads + head) * 2 * T_ + first_key) * S;
      WriteRows(s.dkey, padded, pair.keys, S, scale, to, S);
      WriteRows(s.dvalue, padded, pair.keys, S, 1.0f, to + T_ * S, S);
    } else {
      WriteRows(s.dkey, padded, pair.keys, S, scale,
                static_cast<T*>(args.dk.data) + key_row * args.k_stride + kv_head * S, args.k_stride);
      WriteRows(s.dvalue, padded, pair.keys, S, 1.0f,
                static_cast<T*>(args.dv.data) + key_row * args.v_stride + kv_head * S, args.v_stride);
    }
  }
  WriteRows(s.dquery, padded, T_, S, scale, static_cast<T*>(args.dq.data) + first_row * args.q_stride + head * S,
            args.q_stride);
}

void AttentionBackwardHead(const AttentionArgs& args, int64_t sequence, int64_t head, float* group_gradients,
                           float* scratch) {
  WithElement(args.q.dtype, [&](auto* type) HWY_ATTR {
    AttentionBackwardOf<std::remove_pointer_t<decltype(type)>>(args, sequence, head, group_gradients, scratch);
  });
}

template <typename T>
void AttentionBackwardGroupOf(const AttentionArgs& args, int64_t sequence, int64_t kv_head,
                              const float* group_gradients) {
  const int64_t T_ = args.sequence_length, S = args.head_size, group = args.heads / args.kv_heads;
  const int64_t per_head = 2 * T_ * S;
  const float* from = group_gradients + (sequence * args.heads + kv_head * group) * per_head;
  const auto sum_heads = [&](const float* first, T* to, int64_t stride) HWY_ATTR {
    for (int64_t r = 0; r < T_; ++r) {
      ForVectors(S, [&](int64_t i, int64_t n) HWY_ATTR {
        VF total = LoadN(first + r * S + i, n);
        for (int64_t h = 1; h < group; ++h) total = hn::Add(total, LoadN(first + h * per_head + r * S + i, n));
        StoreN(total, to + r * stride + i, n);
      });
    }
  };
  sum_heads(from, static_cast<T*>(args.dk.data) + sequence * T_ * args.k_stride + kv_head * S, args.k_stride);
  sum_heads(from + T_ * S, static_cast<T*>(args.dv.data) + sequence * T_ * args.v_stride + kv_head * S, args.v_stride);
}

void AttentionBackwardGroup(const AttentionArgs& args, int64_t sequence, int64_t kv_head,
                            const float* group_gradients) {
  WithElement(args.dk.dtype, [&](auto* type) HWY_ATTR {
    AttentionBackwardGroupOf<std::remove_pointer_t<decltype(type)>>(args, sequence, kv_head, group_gradients);
  });
}

int64_t BackwardScratchFloats(const AttentionArgs& args) {
  BackwardScratch unused;
  return CutBackwardScratch(args, nullptr, &unused);
}

void FactorsOfSquare(const AttentionArgs& args, int64_t sequence, int64_t head, const AttentionSquare& square,
                     float* factors, float* scratch) {
  PairFactors(args, sequence, head, {square.first_query, square.queries, square.first_key, square.keys}, factors,
              scratch);
}

void LogSumExps(const float* maximum, const float* sum, int64_t count, float* to) {
  const DF d;
  ForVectors(count, [&](int64_t i, int64_t n) HWY_ATTR {
    const VF base = hn::Mul(LoadN(maximum + i, n), hn::Set(d, 0.693147181f));
    StoreN(hn::Add(base, hn::Log(d, LoadN(sum + i, n))), to + i, n);
  });
}

}  // namespace
}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace accrue::cpu {

HWY_EXPORT(AttentionForwardBlock);
HWY_EXPORT(AttentionBackwardHead);
HWY_EXPORT(AttentionBackwardGroup);
HWY_EXPORT(BackwardScratchFloats);
HWY_EXPORT(FactorsOfSquare);
HWY_EXPORT(LogSumExps);

namespace {

bool UsesBf16Dot(const AttentionArgs& args) { return args.q.dtype == DType::kBF16 && HasBf16Dot(); }

}  // namespace

int64_t AttentionForwardScratch(const AttentionArgs& args) {
  if (UsesBf16Dot(args)) return AttentionForwardScratchBf16(args);
  const int64_t padded = (args.head_size + 15) / 16 * 16;
  return 4 * padded * kAttentionBlock + 4 * kAttentionBlock + 3 * kAttentionBlock * kAttentionBlock +
         DropoutScratch(kAttentionBlock);
}
int64_t AttentionBackwardScratch(const AttentionArgs& args) {
  if (UsesBf16Dot(args)) return AttentionBackwardScratchBf16(args);
  return HWY_DYNAMIC_DISPATCH(BackwardScratchFloats)(args);
}
void AttentionForwardBlock(const AttentionArgs& args, int64_t sequence, int64_t head, int64_t block, float* scratch) {
  if (UsesBf16Dot(args)) return AttentionForwardBlockBf16(args, sequence, head, block, scratch);
  HWY_DYNAMIC_DISPATCH(AttentionForwardBlock)(args, sequence, head, block, scratch);
}
void AttentionBackwardHead(const AttentionArgs& args, int64_t sequence, int64_t head, float* group_gradients,
                           float* scratch) {
  if (UsesBf16Dot(args)) return AttentionBackwardHeadBf16(args, sequence, head, group_gradients, scratch);
  HWY_DYNAMIC_DISPATCH(AttentionBackwardHead)(args, sequence, head, group_gradients, scratch);
}
void AttentionBackwardGroup(const AttentionArgs& args, int64_t sequence, int64_t kv_head,
                            const float* group_gradients) {
  HWY_DYNAMIC_DISPATCH(AttentionBackwardGroup)(args, sequence, kv_head, group_gradients);
}
void AttentionFactors(const AttentionArgs& args, int64_t sequence, int64_t head, const AttentionSquare& square,
                      float* factors, float* scratch) {
  HWY_DYNAMIC_DISPATCH(FactorsOfSquare)(args, sequence, head, square, factors, scratch);
}
void LogSumExpOfBase2(const float* maximum, const float* sum, int64_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(LogSumExps)(maximum, sum, count, to);
}

}  // namespace accrue::cpu
#endif
