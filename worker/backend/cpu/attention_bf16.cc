// The blocks and the order of sums are those of attention_kernels.cc; scores are again held transposed, a
// query per lane. All blocks are padded with zeros to whole granules: the causal mask hides padded keys from
// every query of the sequence, and padded queries meet rows of zeros.
#include "worker/backend/cpu/attention_bf16.h"

#include <cmath>

#include "common/check.h"
#include "hwy/base.h"

#if HWY_ARCH_X86_64
#include "worker/backend/cpu/amx.h"
#include "worker/backend/cpu/attention_products-inl.h"

HWY_PUSH_ATTRIBUTES(ACCRUE_BF16_DOT_TARGET)
namespace accrue::cpu {
namespace {

using namespace bf16_attention;  // NOLINT: the vocabulary of this file

constexpr float kLog2E = 1.44269504f;

// Hands out memory by the vector; without memory it only counts.
class Cutter {
 public:
  explicit Cutter(float* memory) : memory_(memory) {}
  float* Floats(int64_t count) {
    float* at = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += RoundUp(count, kLanes);
    return at;
  }
  uint32_t* Words(int64_t count) { return reinterpret_cast<uint32_t*>(Floats(count)); }
  int64_t used() const { return used_; }

 private:
  float* const memory_;
  int64_t used_ = 0;
};

// What dropout keeps of p, not yet scaled.
HWY_INLINE __m512 Kept(__m512 p, __m512 factor) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(factor, _mm512_setzero_ps(), _CMP_NEQ_UQ), p);
}

// Of 16 lanes (queries) on the diagonal: those that see the key that is `key` keys after the first lane's
// own.
HWY_INLINE __mmask16 Sees(int64_t key) { return static_cast<__mmask16>(uint32_t{0xFFFF} << key); }

HalfMatrix RowsOf(const Tensor& tensor, int64_t first_row, int64_t rows, int64_t stride, int64_t first_column,
                  int64_t columns) {
  return {static_cast<Bf16*>(tensor.data) + first_row * stride + first_column, stride, rows, columns};
}

// to = factors (of rows; all `factor` if null) times from[rows, width], rounded.
void WriteRows(const float* from, const HeadShape& head, const float* factors, float factor,
               const HalfMatrix& to) {
  for (int64_t r = 0; r < to.rows; ++r) {
    Bf16* row = to.data + r * to.stride;
    const __m512 scale = _mm512_set1_ps(factors == nullptr ? factor : factors[r]);
    for (int64_t i = 0; i < head.size; i += kLanes) {
      const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_mul_ps(Load(from + r * head.width + i), scale));
      const __mmask16 lanes = static_cast<__mmask16>((1u << Least(head.size - i, kLanes)) - 1);
      _mm256_mask_storeu_epi16(row + i, lanes, (__m256i)rounded);
    }
  }
}

// The same in binary32, the row stride being the head's size.
void WriteFloats(const float* from, const HeadShape& head, int64_t rows, float factor, float* to) {
  const __m512 scale = _mm512_set1_ps(factor);
  for (int64_t r = 0; r < rows; ++r, to += head.size) {
    for (int64_t i = 0; i < head.size; i += kLanes) {
      const __mmask16 lanes = static_cast<__mmask16>((1u << Least(head.size - i, kLanes)) - 1);
      _mm512_mask_storeu_ps(to + i, lanes, _mm512_mul_ps(Load(from + r * head.width + i), scale));
    }
  }
}

void Fill(float* to, int64_t count, float value) {
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

// Dropout's factors of a pair; zero beyond the sequence.
void PairFactors(const AttentionArgs& args, int64_t sequence, int64_t head, const Pair& pair, float* factors,
                 float* scratch) {
  const int64_t T = args.sequence_length;
  const AttentionSquare square{pair.first_query, Least(pair.queries, T - pair.first_query), pair.first_key,
                               Least(pair.keys, T - pair.first_key)};
  if (square.queries < kBlock) Fill(factors, kBlock * kBlock, 0.0f);
  AttentionFactors(args, sequence, head, square, factors, scratch);
}

struct ForwardScratch {
  uint32_t* query_columns;  // [pairs, kBlock]
  uint32_t* key_rows;       // [kBlock, padded / 2]
  uint32_t* values;         // [kBlock / 2, padded], or, by tiles, [width, kBlock / 2]: words of two keys
  float* scores;            // [kBlock, kBlock]
  uint32_t* probabilities;  // [kBlock / 2, kBlock]: words of two keys
  float* output;            // [kBlock, width]; by tiles transposed
  float* output_rows;       // [kBlock, width], by tiles
  float* maximum;           // [kBlock] so far, times scale and log2(e)
  float* sum;               // [kBlock] of 2^(score - maximum)
  float* rescale;           // [kBlock] what this block's maximum does to earlier sums
  float* factors;           // [kBlock, kBlock]
  float* factor_scratch;
};

int64_t CutForwardScratch(const AttentionArgs& args, float* memory, ForwardScratch* s) {
  const HeadShape head(args);
  Cutter cut(memory);
  s->query_columns = cut.Words(head.pairs * kBlock);
  s->key_rows = cut.Words(kBlock * head.pairs);
  s->values = cut.Words(kBlock / 2 * head.padded);
  s->scores = cut.Floats(kBlock * kBlock);
  s->probabilities = cut.Words(kBlock / 2 * kBlock);
  s->output = cut.Floats(kBlock * head.width);
  s->output_rows = cut.Floats(HasAmx() ? kBlock * head.width : 0);
  s->maximum = cut.Floats(kBlock);
  s->sum = cut.Floats(kBlock);
  s->rescale = cut.Floats(kBlock);
  s->factors = cut.Floats(kBlock * kBlock);
  s->factor_scratch = cut.Floats(AttentionFactorScratch());
  return cut.used();
}

// 2^(score - maximum) of the keys [key, end) for 16 queries: added to the sums of even and of odd keys,
// rounded to `probabilities` where dropout keeps them. Masked: the first key is the first query's own.
template <bool kMasked>
HWY_INLINE void SoftmaxKeys(const ForwardScratch& s, bool dropout, int64_t lane, int64_t key, int64_t end,
                            __m512 scale, __m512 maximum, __m512 (&sums)[2]) {
  const int64_t first = key;
  for (; key < end; key += 2) {
    __m512 p[2];
    for (int i = 0; i < 2; ++i) {
      const int64_t at = (key + i) * kBlock + lane;
      p[i] = Exp2(_mm512_fmsub_ps(Load(s.scores + at), scale, maximum));
      if (kMasked) p[i] = _mm512_maskz_mov_ps(Sees(key + i - first), p[i]);
      sums[i] = _mm512_add_ps(sums[i], p[i]);
      if (dropout) p[i] = Kept(p[i], Load(s.factors + at));
    }
    _mm512_storeu_si512(s.probabilities + key / 2 * kBlock + lane, InterleaveRounded(RoundTwo(p[0], p[1])));
  }
}

void SoftmaxBlock(const Pair& pair, const ForwardScratch& s, bool dropout, float score_scale) {
  const __m512 scale = _mm512_set1_ps(score_scale);
  for (int64_t lane = 0; lane < pair.queries; lane += kLanes) {
    const int64_t keys = pair.VisibleKeys(lane), unmasked = pair.diagonal() ? lane : keys;
    const float* column = s.scores + lane;
    __m512 largest[2] = {_mm512_set1_ps(-HUGE_VALF), _mm512_set1_ps(-HUGE_VALF)};
    for (int64_t key = 0; key < unmasked; key += 2) {
      for (int i = 0; i < 2; ++i) largest[i] = _mm512_max_ps(largest[i], Load(column + (key + i) * kBlock));
    }
    for (int64_t key = unmasked; key < keys; ++key) {
      largest[0] =
          _mm512_mask_max_ps(largest[0], Sees(key - unmasked), largest[0], Load(column + key * kBlock));
    }
    const __m512 before = Load(s.maximum + lane);
    const __m512 maximum = _mm512_max_ps(before, _mm512_mul_ps(_mm512_max_ps(largest[0], largest[1]), scale));
    const __m512 rescale = Exp2(_mm512_sub_ps(before, maximum));
    __m512 sums[2] = {_mm512_mul_ps(Load(s.sum + lane), rescale), _mm512_setzero_ps()};
    SoftmaxKeys<false>(s, dropout, lane, 0, unmasked, scale, maximum, sums);
    SoftmaxKeys<true>(s, dropout, lane, unmasked, keys, scale, maximum, sums);
    Store(maximum, s.maximum + lane);
    Store(rescale, s.rescale + lane);
    Store(_mm512_add_ps(sums[0], sums[1]), s.sum + lane);
  }
}

template <bool kAmx>
void Forward(const AttentionArgs& args, int64_t sequence, int64_t head_index, int64_t block, float* memory) {
  ForwardScratch s;
  CutForwardScratch(args, memory, &s);
  const HeadShape head(args);
  const int64_t T = args.sequence_length, S = head.size, first_row = sequence * T;
  const int64_t kv_column = head_index / (args.heads / args.kv_heads) * S;
  const float scale = 1.0f / std::sqrt(static_cast<float>(S)) * kLog2E;
  const bool dropout = args.dropout.probability > 0;
  Pair pair{.granule = kGranule<kAmx>, .first_query = block * kBlock};
  const int64_t queries = Least(kBlock, T - pair.first_query);
  pair.queries = RoundUp(queries, pair.granule);
  const HalfMatrix q =
      RowsOf(args.q, first_row + pair.first_query, queries, args.q_stride, head_index * S, S);
  const HalfMatrix k = RowsOf(args.k, first_row, T, args.k_stride, kv_column, S);
  const HalfMatrix v = RowsOf(args.v, first_row, T, args.v_stride, kv_column, S);
  for (const HalfMatrix* rows : {&q, &k, &v}) rows->Fetch(0, kBlock);
  PackColumns(q, pair.queries, s.query_columns, kBlock);
  Fill(s.maximum, kBlock, -HUGE_VALF);
  Fill(s.sum, kBlock, 0.0f);

  for (; pair.first_key <= pair.first_query; pair.first_key += kBlock) {
    pair.keys = RoundUp(Least(kBlock, T - pair.first_key), pair.granule);
    PackRows(k.From(pair.first_key), pair.keys, head.pairs, s.key_rows);
    PackKeysForQueries<kAmx>(v.From(pair.first_key), pair.keys, head, s.values);
    k.Fetch(pair.first_key + kBlock, kBlock);
    v.Fetch(pair.first_key + kBlock, kBlock);
    for (int64_t key = 0; key < pair.keys; key += pair.step()) {
      ScoreProduct<kAmx>(pair, head, key, Least(pair.step(), pair.keys), s.key_rows, s.query_columns,
                         s.scores + key * kBlock);
    }
    if (dropout) PairFactors(args, sequence, head_index, pair, s.factors, s.factor_scratch);
    SoftmaxBlock(pair, s, dropout, scale);
    AddByQueries<kAmx>(pair, head,
                       {.scores = s.probabilities,
                        .keys = s.values,
                        .c = s.output,
                        .accumulate = pair.first_key > 0,
                        .factors = s.rescale});
  }

  LogSumExpOfBase2(s.maximum, s.sum, queries,
                   args.log_sum_exp + (sequence * args.heads + head_index) * T + pair.first_query);
  const float kept_scale = dropout ? DropoutScale(args.dropout) : 1.0f;
  for (int64_t q = 0; q < queries; ++q) s.rescale[q] = kept_scale / s.sum[q];
  WriteRows(QueryRows<kAmx>(s.output, head, s.output_rows), head, s.rescale, 1.0f,
            RowsOf(args.out, first_row + pair.first_query, queries, args.out_stride, head_index * S, S));
}

// What the backward pass of one head keeps.
struct BackwardScratch {
  uint32_t* query_columns;     // [blocks][pairs, kBlock]
  uint32_t* gradient_columns;  // [blocks][pairs, kBlock] of dout
  uint32_t* query_pairs;       // [rows / 2, padded]: words of two rows
  uint32_t* gradient_pairs;    // [rows / 2, padded] of dout
  float* dquery;               // [rows, width]; by tiles [blocks][width, kBlock]
  float* dquery_rows;          // [kBlock, width], by tiles
  uint32_t* key_rows;          // [kBlock, padded / 2]
  uint32_t* keys;              // [kBlock / 2, padded], or, by tiles, [width, kBlock / 2]: words of two keys
  uint32_t* value_rows;        // [kBlock, padded / 2]
  float* dkey;                 // [kBlock, width]
  float* dvalue;               // [kBlock, width]
  float* scores;               // [kLanes, kBlock]
  float* gradients;            // [kLanes, kBlock] of the probabilities
  uint32_t* probabilities;     // [kBlock, kBlock / 2]: words of two queries
  uint32_t* dscores;           // [kBlock, kBlock / 2]: words of two queries
  uint32_t* dscore_pairs;      // [kBlock / 2, kBlock]: words of two keys
  float* log_sum_exp;          // [rows], times log2(e)
  float* row_products;         // [rows] sums of dout * out
  float* factors;              // [kBlock, kBlock]
  float* factor_scratch;
};

int64_t CutBackwardScratch(const AttentionArgs& args, float* memory, BackwardScratch* s) {
  const HeadShape head(args);
  const int64_t rows = RoundUp(args.sequence_length, kBlock);
  Cutter cut(memory);
  s->query_columns = cut.Words(rows * head.pairs);
  s->gradient_columns = cut.Words(rows * head.pairs);
  s->query_pairs = cut.Words(rows / 2 * head.padded);
  s->gradient_pairs = cut.Words(rows / 2 * head.padded);
  s->dquery = cut.Floats(rows * head.width);
  s->dquery_rows = cut.Floats(HasAmx() ? kBlock * head.width : 0);
  s->key_rows = cut.Words(kBlock * head.pairs);
  s->keys = cut.Words(kBlock / 2 * head.padded);
  s->value_rows = cut.Words(kBlock * head.pairs);
  s->dkey = cut.Floats(kBlock * head.width);
  s->dvalue = cut.Floats(kBlock * head.width);
  s->scores = cut.Floats(kLanes * kBlock);
  s->gradients = cut.Floats(kLanes * kBlock);
  s->probabilities = cut.Words(kBlock * kBlock / 2);
  s->dscores = cut.Words(kBlock * kBlock / 2);
  s->dscore_pairs = cut.Words(kBlock / 2 * kBlock);
  s->log_sum_exp = cut.Floats(rows);
  s->row_products = cut.Floats(rows);
  s->factors = cut.Floats(kBlock * kBlock);
  s->factor_scratch = cut.Floats(AttentionFactorScratch());
  return cut.used();
}

void PrepareBackward(const AttentionArgs& args, int64_t sequence, int64_t head_index, const HeadShape& head,
                     const BackwardScratch& s) {
  const int64_t T = args.sequence_length, rows = RoundUp(T, kBlock), column = head_index * head.size;
  const HalfMatrix q = RowsOf(args.q, sequence * T, T, args.q_stride, column, head.size);
  const HalfMatrix out = RowsOf(args.out, sequence * T, T, args.out_stride, column, head.size);
  const HalfMatrix dout = RowsOf(args.dout, sequence * T, T, args.out_stride, column, head.size);
  q.Fetch(0, T);
  dout.Fetch(0, T);
  PackRowPairs(q, rows, head.padded, s.query_pairs);
  out.Fetch(0, T);
  PackRowPairs(dout, rows, head.padded, s.gradient_pairs);
  for (int64_t row = 0; row < T; row += kBlock) {
    PackColumns(q.From(row), kBlock, s.query_columns + row * head.pairs, kBlock);
    PackColumns(dout.From(row), kBlock, s.gradient_columns + row * head.pairs, kBlock);
  }
  const float* log_sum_exp = args.log_sum_exp + (sequence * args.heads + head_index) * T;
  for (int64_t r = 0; r < rows; ++r) s.log_sum_exp[r] = r < T ? log_sum_exp[r] * kLog2E : 0.0f;
  for (int64_t r = 0; r < rows; ++r) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < head.size; i += 2 * kLanes) {
      sum = _mm512_dpbf16_ps(sum, Pairs(dout.At(r, i)), Pairs(out.At(r, i)));
    }
    s.row_products[r] = SumOfLanes(sum);
  }
}

HWY_INLINE void StoreTwo(__m512i rounded, uint32_t* even, uint32_t* odd) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(even), _mm512_castsi512_si256(rounded));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(odd), _mm512_extracti64x4_epi64(rounded, 1));
}

// For 16 keys from `key` and 16 queries from `lane`: from scores and gradients of the probabilities to the
// probabilities that dropout keeps, which multiply dout for dV, and to the scores' gradients, all rounded.
// Masked: those on the diagonal.
template <bool kMasked>
HWY_INLINE void ScoreGradientLanes(const Pair& pair, const BackwardScratch& s, bool dropout, int64_t key,
                                   int64_t lane, __m512 scale) {
  const __m512 log_sum_exp = Load(s.log_sum_exp + pair.first_query + lane);
  const __m512 product = Load(s.row_products + pair.first_query + lane);
  for (int64_t row = 0; row < kLanes; row += 2) {
    __m512 kept[2], gradient[2];
    for (int i = 0; i < 2; ++i) {
      __m512 p = Exp2(_mm512_fmsub_ps(Load(s.scores + (row + i) * kBlock + lane), scale, log_sum_exp));
      if (kMasked) p = _mm512_maskz_mov_ps(Sees(row + i), p);
      gradient[i] = Load(s.gradients + (row + i) * kBlock + lane);
      kept[i] = p;
      if (dropout) {
        const __m512 factor = Load(s.factors + (key + row + i) * kBlock + lane);
        gradient[i] = _mm512_mul_ps(gradient[i], factor);
        kept[i] = Kept(p, factor);
      }
      gradient[i] = _mm512_mul_ps(p, _mm512_sub_ps(gradient[i], product));
    }
    const int64_t even = ((key + row) * kBlock + lane) / 2, odd = even + kBlock / 2;
    StoreTwo(RoundTwo(kept[0], kept[1]), s.probabilities + even, s.probabilities + odd);
    const __m512i rounded = RoundTwo(gradient[0], gradient[1]);
    StoreTwo(rounded, s.dscores + even, s.dscores + odd);
    _mm512_storeu_si512(s.dscore_pairs + (key + row) / 2 * kBlock + lane, InterleaveRounded(rounded));
  }
}

// Zero, for 16 keys that none of the 16 queries sees.
HWY_INLINE void NoGradientLanes(const BackwardScratch& s, int64_t key, int64_t lane) {
  const __m512i zero = _mm512_setzero_si512();
  for (int64_t row = 0; row < kLanes; row += 2) {
    const int64_t even = ((key + row) * kBlock + lane) / 2, odd = even + kBlock / 2;
    StoreTwo(zero, s.probabilities + even, s.probabilities + odd);
    StoreTwo(zero, s.dscores + even, s.dscores + odd);
    _mm512_storeu_si512(s.dscore_pairs + (key + row) / 2 * kBlock + lane, zero);
  }
}

// Probabilities and score gradients of a pair, 16 keys at a time, so that scores stay in the first cache.
template <bool kAmx>
void ScoreGradients(const Pair& pair, const HeadShape& head, const BackwardScratch& s, bool dropout,
                    float scale) {
  const int64_t from = pair.first_query * head.pairs;
  const __m512 scales = _mm512_set1_ps(scale * kLog2E);
  for (int64_t key = 0; key < pair.keys; key += kLanes) {
    ScoreProduct<kAmx>(pair, head, key, kLanes, s.key_rows, s.query_columns + from, s.scores);
    ScoreProduct<kAmx>(pair, head, key, kLanes, s.value_rows, s.gradient_columns + from, s.gradients);
    int64_t lane = pair.FirstLane(key);
    if (pair.diagonal()) {
      for (; lane < key; lane += kLanes) NoGradientLanes(s, key, lane);
      ScoreGradientLanes<true>(pair, s, dropout, key, lane, scales);
      lane += kLanes;
    }
    for (; lane < pair.queries; lane += kLanes)
      ScoreGradientLanes<false>(pair, s, dropout, key, lane, scales);
  }
}

template <bool kAmx>
void Backward(const AttentionArgs& args, int64_t sequence, int64_t head_index, float* group_gradients,
              float* memory) {
  BackwardScratch s;
  CutBackwardScratch(args, memory, &s);
  const HeadShape head(args);
  PrepareBackward(args, sequence, head_index, head, s);
  const int64_t T = args.sequence_length, S = head.size, first_row = sequence * T;
  const int64_t kv_column = head_index / (args.heads / args.kv_heads) * S;
  const float scale = 1.0f / std::sqrt(static_cast<float>(S));
  const bool dropout = args.dropout.probability > 0;
  const float kept_scale = dropout ? DropoutScale(args.dropout) : 1.0f;
  const HalfMatrix k = RowsOf(args.k, first_row, T, args.k_stride, kv_column, S);
  const HalfMatrix v = RowsOf(args.v, first_row, T, args.v_stride, kv_column, S);
  for (int64_t first_key = 0; first_key < T; first_key += kBlock) {
    const int64_t keys = Least(kBlock, T - first_key), key_row = first_row + first_key;
    Pair pair{.granule = kGranule<kAmx>, .first_key = first_key, .keys = RoundUp(keys, kGranule<kAmx>)};
    PackRows(k.From(first_key), pair.keys, head.pairs, s.key_rows);
    PackKeysForQueries<kAmx>(k.From(first_key), pair.keys, head, s.keys);
    PackRows(v.From(first_key), pair.keys, head.pairs, s.value_rows);
    k.Fetch(first_key + kBlock, kBlock);
    v.Fetch(first_key + kBlock, kBlock);
    for (pair.first_query = first_key; pair.first_query < T; pair.first_query += kBlock) {
      pair.queries = RoundUp(Least(kBlock, T - pair.first_query), pair.granule);
      if (dropout) PairFactors(args, sequence, head_index, pair, s.factors, s.factor_scratch);
      ScoreGradients<kAmx>(pair, head, s, dropout, scale);
      const int64_t rows = pair.first_query / 2 * head.padded;
      AddByKeys<kAmx>(pair, head, s.probabilities, s.gradient_pairs + rows, s.dvalue, !pair.diagonal());
      AddByKeys<kAmx>(pair, head, s.dscores, s.query_pairs + rows, s.dkey, !pair.diagonal());
      AddByQueries<kAmx>(pair, head,
                         {.scores = s.dscore_pairs,
                          .keys = s.keys,
                          .c = s.dquery + pair.first_query * head.width,
                          .accumulate = first_key > 0});
    }
    if (group_gradients != nullptr) {
      float* to = group_gradients + ((sequence * args.heads + head_index) * 2 * T + first_key) * S;
      WriteFloats(s.dkey, head, keys, scale, to);
      WriteFloats(s.dvalue, head, keys, kept_scale, to + T * S);
    } else {
      WriteRows(s.dkey, head, nullptr, scale, RowsOf(args.dk, key_row, keys, args.k_stride, kv_column, S));
      WriteRows(s.dvalue, head, nullptr, kept_scale,
                RowsOf(args.dv, key_row, keys, args.v_stride, kv_column, S));
    }
    // Queries see no later keys: this block's sums are whole.
    WriteRows(QueryRows<kAmx>(s.dquery + first_key * head.width, head, s.dquery_rows), head, nullptr, scale,
              RowsOf(args.dq, key_row, keys, args.q_stride, head_index * S, S));
  }
}

}  // namespace
}  // namespace accrue::cpu
HWY_POP_ATTRIBUTES

namespace accrue::cpu {

int64_t AttentionForwardScratchBf16(const AttentionArgs& args) {
  ForwardScratch unused;
  return CutForwardScratch(args, nullptr, &unused);
}
int64_t AttentionBackwardScratchBf16(const AttentionArgs& args) {
  BackwardScratch unused;
  return CutBackwardScratch(args, nullptr, &unused);
}
void AttentionForwardBlockBf16(const AttentionArgs& args, int64_t sequence, int64_t head, int64_t block,
                               float* scratch) {
  if (!HasAmx()) return Forward<false>(args, sequence, head, block, scratch);
  const amx::Tiles tiles;
  Forward<true>(args, sequence, head, block, scratch);
}
void AttentionBackwardHeadBf16(const AttentionArgs& args, int64_t sequence, int64_t head,
                               float* group_gradients, float* scratch) {
  if (!HasAmx()) return Backward<false>(args, sequence, head, group_gradients, scratch);
  const amx::Tiles tiles;
  Backward<true>(args, sequence, head, group_gradients, scratch);
}

}  // namespace accrue::cpu

#else

namespace accrue::cpu {

int64_t AttentionForwardScratchBf16(const AttentionArgs&) { return 0; }
int64_t AttentionBackwardScratchBf16(const AttentionArgs&) { return 0; }
void AttentionForwardBlockBf16(const AttentionArgs&, int64_t, int64_t, int64_t, float*) {
  ACCRUE_CHECK(false);
}
void AttentionBackwardHeadBf16(const AttentionArgs&, int64_t, int64_t, float*, float*) {
  ACCRUE_CHECK(false);
}

}  // namespace accrue::cpu
#endif
