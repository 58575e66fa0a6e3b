// Attention, backward, in three kernels: the rows' products of dout and out; dq by blocks of queries, over keys in
// ascending order; dk and dv by blocks of keys, over the query heads of their group and then queries, both in ascending
// order. The last two compute the probabilities anew from log_sum_exp.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/attention.h"

namespace accrue::cuda {

// row_products = sum over a head's elements of dout * out. A row of a head takes kHead / piece lanes of a warp.
template <typename T, int kHead>
struct RowProductsBody {
  using Args = AttentionKernelArgs;
  using Shared = NoShared;
  using State = NoState;
  static constexpr int kWarps = 8;
  static constexpr int kPhases = 1;
  static constexpr int kPiece = 16 / static_cast<int>(sizeof(T)), kGroup = kHead / kPiece, kRowsPerWarp = kLanes / kGroup;

  ACCRUE_BODY static int64_t Rows(const Args& args) {
    return args.op.batch * args.op.sequence_length * args.op.heads;
  }
  ACCRUE_BODY static int64_t Blocks(const Args& args) { return BlocksOf(Rows(args), kWarps * kRowsPerWarp); }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int warp, Shared&, State&) {
    const AttentionArgs& op = args.op;
    const int64_t first = (block * kWarps + warp) * kRowsPerWarp;
    PerLane<float> sum;
    ForLanes([&](int lane) {
      sum[lane] = 0;
      const int64_t row = first + lane / kGroup;
      const int column = lane % kGroup * kPiece;
      if (row >= Rows(args) || column >= op.head_size) return;
      const int64_t at = row / op.heads * op.out_stride + row % op.heads * op.head_size + column;
      const T* const out = static_cast<const T*>(op.out.data) + at;
      const T* const dout = static_cast<const T*>(op.dout.data) + at;
      if (args.aligned) {
        const Pack<T, kPiece> a = Load<kPiece>(out, true), b = Load<kPiece>(dout, true);
        ACCRUE_UNROLL
        for (int n = 0; n < kPiece; ++n) sum[lane] = Fma(ToFloat(a.at[n]), ToFloat(b.at[n]), sum[lane]);
      } else {
        for (int n = 0; n < kPiece && column + n < op.head_size; ++n) {
          sum[lane] = Fma(ToFloat(out[n]), ToFloat(dout[n]), sum[lane]);
        }
      }
    });
    sum = SumOverLanes<kGroup>(sum);
    ForLanes([&](int lane) {
      const int64_t row = first + lane / kGroup;
      if (lane % kGroup != 0 || row >= Rows(args)) return;
      const int64_t token = row / op.heads;
      args.row_products[StatisticsOf(op, token / op.sequence_length, row % op.heads) + token % op.sequence_length] =
          sum[lane];
    });
  }
};

template <typename T, int kHead>
struct AttentionQueryGradientBody {
  using Args = AttentionKernelArgs;
  static constexpr bool kWide = std::is_same<T, float>::value;
  static constexpr int kWarps = 4, kQueries = kWarps * kStripe, kKeys = kWide ? 32 : 64;
  // Keys whose scores are in registers at a time.
  static constexpr int kInner = 32;

  struct Shared {
    Tile<T, kQueries, kHead> query, gradient;
    Tile<T, kKeys, kHead> key[2], value[2];
    WeightScratch<T, kInner> scratch[kWarps];
  };
  static constexpr int kBlocksAtOnce = kHead == 64 ? 3 : 2;
  struct State {
    HeadPlace at;
    LeftRows<T, kHead, kHead == 64> query[1], gradient[1];
    Sums16<kHead> dquery[1];
    RowPair log_sum_exp2, product;  // the first one in powers of two
  };

  ACCRUE_BODY static int64_t Blocks(const Args& args) {
    return args.op.batch * args.op.heads * BlocksOf(args.op.sequence_length, kQueries);
  }
  ACCRUE_BODY static int Steps(const Args& args, int64_t block) {
    const int64_t end = Place(args, block).first + kQueries, length = args.op.sequence_length;
    return Blocks32(end < length ? end : length, kKeys);
  }

  ACCRUE_BODY static void Begin(const Args& args, int64_t block, int warp, Shared& shared, State& state) {
    const AttentionArgs& op = args.op;
    const HeadPlace at = state.at = Place(args, block);
    const int first = at.first;
    FetchTile<kWarps>(HeadRows<T>(args, op.q, op.q_stride, at.sequence, at.head), first, warp, shared.query);
    FetchTile<kWarps>(HeadRows<T>(args, op.dout, op.out_stride, at.sequence, at.head), first, warp, shared.gradient);
    state.dquery[0].SetZero();
    const int64_t statistics = StatisticsOf(op, at.sequence, at.head);
    ACCRUE_UNROLL
    for (int h = 0; h < 2; ++h) {
      ForLanes([&](int lane) {
        const int row = first + warp * kStripe + SumRow(lane, 2 * h);
        const bool valid = row < op.sequence_length;
        state.log_sum_exp2[h][lane] = valid ? Mul(op.log_sum_exp[statistics + row], kLog2E) : 0.0f;
        state.product[h][lane] = valid ? args.row_products[statistics + row] : 0.0f;
      });
    }
  }

  ACCRUE_BODY static void Fetch(const Args& args, int64_t, int step, int warp, Shared& shared, const State& state) {
    const HeadPlace& at = state.at;
    const int first = step * kKeys;
    FetchTile<kWarps>(HeadRows<T>(args, args.op.k, args.op.k_stride, at.sequence, at.kv_head), first, warp,
                      shared.key[HalfOfStep(step)]);
    FetchTile<kWarps>(HeadRows<T>(args, args.op.v, args.op.v_stride, at.sequence, at.kv_head), first, warp,
                      shared.value[HalfOfStep(step)]);
  }

  ACCRUE_BODY static void Step(const Args& args, int64_t, int step, int warp, Shared& shared, State& state) {
    if (step == 0) {
      state.query[0].Take(shared.query, warp * kStripe);
      state.gradient[0].Take(shared.gradient, warp * kStripe);
    }
    const int first_query = state.at.first + warp * kStripe;
    const auto& key = shared.key[HalfOfStep(step)];
    const auto& value = shared.value[HalfOfStep(step)];
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
    for (int inner = 0; inner < kKeys; inner += kInner) {
      const int first_key = step * kKeys + inner;
      if (first_key > first_query + kStripe - 1) return;
      Sums16<kInner> scores[1], gradients[1];
      scores[0].SetZero();
      gradients[0].SetZero();
      AddTransposedProduct(state.query, key, inner, scores);
      AddTransposedProduct(state.gradient, value, inner, gradients);
      ScoreGradients(args, first_query, first_key, state, scores[0], gradients[0]);
      AddProduct(gradients, key, inner, state.dquery, shared.scratch[warp]);
    }
  }

  ACCRUE_BODY static void End(const Args& args, int64_t, int warp, Shared&, State& state) {
    const HeadPlace& at = state.at;
    StoreStripe<T>(state.dquery[0], args.scale,
                   HeadRows<T>(args, args.op.dq, args.op.q_stride, at.sequence, at.head),
                   at.first + warp * kStripe);
  }

 private:
  // A head's last queries see the most keys and go first.
  ACCRUE_BODY static HeadPlace Place(const Args& args, int64_t block) {
    const int blocks = Blocks32(args.op.sequence_length, kQueries), heads = static_cast<int>(args.op.heads);
    const int row = static_cast<int>(block) / blocks, head = row % heads;
    return {row / heads, head, head / (heads / static_cast<int>(args.op.kv_heads)),
            (blocks - 1 - static_cast<int>(block) % blocks) * kQueries};
  }

  // gradients: of the kept probabilities in, of the scores out, zero where masked.
  ACCRUE_BODY static void ScoreGradients(const Args& args, int first_query, int first_key, const State& state,
                                         const Sums16<kInner>& scores, Sums16<kInner>& gradients) {
    const bool masks = first_key + kInner - 1 > first_query;
    const HeadPlace& at = state.at;
    ACCRUE_UNROLL
    for (int h = 0; h < 2; ++h) {
      ForLanes([&](int lane) {
        const int seen = first_query - first_key + SumRow(lane, 2 * h) + 1;
        ACCRUE_UNROLL
        for (int n = 0; n < kInner / 8; ++n) {
          float pair[2] = {gradients.at[n][2 * h][lane], gradients.at[n][2 * h + 1][lane]};
          if (args.dropout.on) {
            Drop(args.dropout,
                 ProbabilityOf(args.op, at.sequence, at.head, first_query + SumRow(lane, 2 * h),
                               first_key + SumColumn(lane, n, 0)),
                 pair);
          }
          ACCRUE_UNROLL
          for (int j = 0; j < 2; ++j) {
            const float p =
                Exp2(Fma(scores.at[n][2 * h + j][lane], args.scale2, -state.log_sum_exp2[h][lane]));
            const float gradient = Mul(p, Sub(pair[j], state.product[h][lane]));
            gradients.at[n][2 * h + j][lane] = masks && SumColumn(lane, n, j) >= seen ? 0.0f : gradient;
          }
        }
      });
    }
  }
};

template <typename T, int kHead>
struct AttentionKeyGradientBody {
  using Args = AttentionKernelArgs;
  static constexpr bool kWide = std::is_same<T, float>::value;
  static constexpr int kWarps = 4, kKeys = kWarps * kStripe, kQueries = kWide ? 32 : 64;
  // Queries whose scores are in registers at a time.
  static constexpr int kInner = kHead == 64 ? 32 : 16;
  static_assert(kKeys % kQueries == 0);

  struct Shared {
    Tile<T, kKeys, kHead> key, value;
    Tile<T, kQueries, kHead> query[2], gradient[2];
    float log_sum_exp[2][kQueries], product[2][kQueries];
    WeightScratch<T, kInner> scratch[kWarps];
  };
  static constexpr int kBlocksAtOnce = kHead == 64 ? 3 : 2;
  struct State {
    HeadPlace at;
    int query_blocks;  // of one head, those that see a key of the block
    LeftRows<T, kHead, kHead == 64> key[1], value[1];
    Sums16<kHead> dkey[1], dvalue[1];
  };

  ACCRUE_BODY static int64_t Blocks(const Args& args) {
    return args.op.batch * args.op.kv_heads * BlocksOf(args.op.sequence_length, kKeys);
  }
  ACCRUE_BODY static int Steps(const Args& args, int64_t block) {
    return GroupOf(args) * Blocks32(args.op.sequence_length - Place(args, block).first, kQueries);
  }

  ACCRUE_BODY static void Begin(const Args& args, int64_t block, int warp, Shared& shared, State& state) {
    const HeadPlace at = state.at = Place(args, block);
    state.query_blocks = Blocks32(args.op.sequence_length - at.first, kQueries);
    const int first = at.first;
    FetchTile<kWarps>(HeadRows<T>(args, args.op.k, args.op.k_stride, at.sequence, at.kv_head), first, warp, shared.key);
    FetchTile<kWarps>(HeadRows<T>(args, args.op.v, args.op.v_stride, at.sequence, at.kv_head), first, warp,
                      shared.value);
    state.dkey[0].SetZero();
    state.dvalue[0].SetZero();
  }

  ACCRUE_BODY static void Fetch(const Args& args, int64_t, int step, int warp, Shared& shared, const State& state) {
    const AttentionArgs& op = args.op;
    const HeadPlace& at = state.at;
    const Queries queries = QueriesOf(args, state, step);
    const int half = HalfOfStep(step);
    FetchTile<kWarps>(HeadRows<T>(args, op.q, op.q_stride, at.sequence, queries.head), queries.first, warp,
                      shared.query[half]);
    FetchTile<kWarps>(HeadRows<T>(args, op.dout, op.out_stride, at.sequence, queries.head), queries.first, warp,
                      shared.gradient[half]);
    const int64_t statistics = StatisticsOf(op, at.sequence, queries.head);
    ForLanes([&](int lane) {
      const int q = warp * kLanes + lane;
      if (q >= 2 * kQueries) return;
      const int row = queries.first + q % kQueries;
      const bool valid = row < op.sequence_length;
      const float* const from = q < kQueries ? op.log_sum_exp : args.row_products;
      float* const to = q < kQueries ? shared.log_sum_exp[half] : shared.product[half];
      StartCopy<4>(to + q % kQueries, from + statistics + (valid ? row : 0), valid);
    });
  }

  ACCRUE_BODY static void Step(const Args& args, int64_t, int step, int warp, Shared& shared, State& state) {
    if (step == 0) {
      state.key[0].Take(shared.key, warp * kStripe);
      state.value[0].Take(shared.value, warp * kStripe);
    }
    const int half = HalfOfStep(step);
    const Queries queries = QueriesOf(args, state, step);
    const int first_key = state.at.first + warp * kStripe;
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
    for (int inner = 0; inner < kQueries; inner += kInner) {
      const int first_query = queries.first + inner;
      if (first_key > first_query + kInner - 1) continue;  // nobody sees these keys
      Sums16<kInner> scores[1], gradients[1];
      scores[0].SetZero();
      gradients[0].SetZero();
      AddTransposedProduct(state.key, shared.query[half], inner, scores);
      AddTransposedProduct(state.value, shared.gradient[half], inner, gradients);
      ScoreGradients(args, state.at.sequence, queries.head, first_query, first_key, shared.log_sum_exp[half] + inner,
                     shared.product[half] + inner, scores[0], gradients[0]);
      AddProduct(scores, shared.gradient[half], inner, state.dvalue, shared.scratch[warp]);
      AddProduct(gradients, shared.query[half], inner, state.dkey, shared.scratch[warp]);
    }
  }

  ACCRUE_BODY static void End(const Args& args, int64_t, int warp, Shared&, State& state) {
    const AttentionArgs& op = args.op;
    const HeadPlace& at = state.at;
    const int first = at.first + warp * kStripe;
    StoreStripe<T>(state.dkey[0], args.scale, HeadRows<T>(args, op.dk, op.k_stride, at.sequence, at.kv_head), first);
    StoreStripe<T>(state.dvalue[0], 1.0f, HeadRows<T>(args, op.dv, op.v_stride, at.sequence, at.kv_head), first);
  }

 private:
  struct Queries {
    int head, first;
  };
  // How many query heads read one head of keys and values.
  ACCRUE_BODY static int GroupOf(const Args& args) {
    return static_cast<int>(args.op.heads) / static_cast<int>(args.op.kv_heads);
  }
  // A head's first keys are seen by the most queries and go first.
  ACCRUE_BODY static HeadPlace Place(const Args& args, int64_t block) {
    const int blocks = Blocks32(args.op.sequence_length, kKeys), kv_heads = static_cast<int>(args.op.kv_heads);
    const int row = static_cast<int>(block) / blocks;
    return {row / kv_heads, 0, row % kv_heads, static_cast<int>(block) % blocks * kKeys};
  }
  ACCRUE_BODY static Queries QueriesOf(const Args& args, const State& state, int step) {
    return {state.at.kv_head * GroupOf(args) + step / state.query_blocks,
            state.at.first + step % state.query_blocks * kQueries};
  }

  // Rows are keys, columns queries. scores become the kept probabilities, gradients of these those of the scores; both
  // zero where masked.
  ACCRUE_BODY static void ScoreGradients(const Args& args, int sequence, int head, int first_query, int first_key,
                                         const float* log_sum_exp, const float* product, Sums16<kInner>& scores,
                                         Sums16<kInner>& gradients) {
    const bool masks = first_key + kStripe - 1 > first_query;
    ForLanes([&](int lane) {
      ACCRUE_UNROLL
      for (int n = 0; n < kInner / 8; ++n) {
        ACCRUE_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int query = SumColumn(lane, n, i), row = SumRow(lane, i);
          const float p = Exp2(Fma(scores.at[n][i][lane], args.scale2, -Mul(log_sum_exp[query], kLog2E)));
          float factor[1] = {1};
          if (args.dropout.on) {
            Drop(args.dropout, ProbabilityOf(args.op, sequence, head, first_query + query, first_key + row), factor);
          }
          const float gradient = Mul(gradients.at[n][i][lane], factor[0]);
          const bool hidden = masks && first_query + query < first_key + row;
          scores.at[n][i][lane] = hidden ? 0.0f : Mul(p, factor[0]);
          gradients.at[n][i][lane] = hidden ? 0.0f : Mul(p, Sub(gradient, product[query]));
        }
      }
    });
  }
};

}  // namespace accrue::cuda
