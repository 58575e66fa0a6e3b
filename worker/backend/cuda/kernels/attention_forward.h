// Attention, forward: a block takes some queries of one head and goes through the keys that they see, in ascending
// order. Scores, the maximum so far and the sum of exponentials stay in registers.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/attention.h"

namespace accrue::cuda {

template <typename T, int kHead>
struct AttentionForwardBody {
  using Args = AttentionKernelArgs;
  static constexpr bool kWide = std::is_same<T, float>::value;
  static constexpr int kWarps = 4;
  // Two stripes a warp where registers allow it: what is read of keys and values serves twice as many queries.
  static constexpr int kStripes = !kWide && kHead == 64 ? 2 : 1;
  static constexpr int kQueries = kWarps * kStripes * kStripe, kKeys = kWide ? 32 : 64;

  struct Shared {
    Tile<T, kQueries, kHead> query;
    Tile<T, kKeys, kHead> key[2], value[2];
    WeightScratch<T, kKeys> scratch[kWarps];
  };
  // A multiprocessor's registers are shared out so that this many blocks fit.
  static constexpr int kBlocksAtOnce = 2;
  struct State {
    HeadPlace at;
    LeftRows<T, kHead, true> query[kStripes];
    Sums16<kHead> output[kStripes];
    // Of the raw scores so far: the maximum, and the lane's part of the sum of exponentials.
    RowPair maximum[kStripes], sum[kStripes];
  };

  ACCRUE_BODY static int64_t Blocks(const Args& args) {
    return args.op.batch * args.op.heads * BlocksOf(args.op.sequence_length, kQueries);
  }
  ACCRUE_BODY static int Steps(const Args& args, int64_t block) {
    const int64_t end = Place(args, block).first + kQueries, length = args.op.sequence_length;
    return Blocks32(end < length ? end : length, kKeys);
  }

  ACCRUE_BODY static void Begin(const Args& args, int64_t block, int warp, Shared& shared, State& state) {
    const HeadPlace at = state.at = Place(args, block);
    FetchTile<kWarps>(HeadRows<T>(args, args.op.q, args.op.q_stride, at.sequence, at.head), at.first, warp,
                      shared.query);
    ACCRUE_UNROLL
    for (int s = 0; s < kStripes; ++s) {
      state.output[s].SetZero();
      ACCRUE_UNROLL
      for (int h = 0; h < 2; ++h) {
        ForLanes([&](int lane) {
          state.maximum[s][h][lane] = FloatOf(0xff800000);
          state.sum[s][h][lane] = 0;
        });
      }
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
      ACCRUE_UNROLL
      for (int s = 0; s < kStripes; ++s) state.query[s].Take(shared.query, (warp * kStripes + s) * kStripe);
    }
    // The warp's queries; a stripe begins at no key's block but its own, so each of its rows sees a first key.
    const int first_query = state.at.first + warp * kStripes * kStripe, first_key = step * kKeys;
    if (first_key > first_query + (kStripes - 1) * kStripe) return;
    Sums16<kKeys> scores[kStripes];
    ACCRUE_UNROLL
    for (int s = 0; s < kStripes; ++s) scores[s].SetZero();
    AddTransposedProduct(state.query, shared.key[HalfOfStep(step)], 0, scores);
    ACCRUE_UNROLL
    for (int s = 0; s < kStripes; ++s) {
      Softmax(args, state.at, first_query + s * kStripe, first_key, scores[s], state.maximum[s], state.sum[s],
              state.output[s]);
    }
    AddProduct(scores, shared.value[HalfOfStep(step)], 0, state.output, shared.scratch[warp]);
  }

  ACCRUE_BODY static void End(const Args& args, int64_t, int warp, Shared&, State& state) {
    const HeadPlace& at = state.at;
    const RowSource<T> out = HeadRows<T>(args, args.op.out, args.op.out_stride, at.sequence, at.head);
    float* const log_sum_exp = args.op.log_sum_exp + StatisticsOf(args.op, at.sequence, at.head);
    ACCRUE_UNROLL
    for (int s = 0; s < kStripes; ++s) {
      const int first = at.first + (warp * kStripes + s) * kStripe;
      ACCRUE_UNROLL
      for (int h = 0; h < 2; ++h) {
        const PerLane<float> sum = SumOverLanes<4>(state.sum[s][h]);
        ForLanes([&](int lane) {
          const float inverse = Div(1.0f, sum[lane]);
          ACCRUE_UNROLL
          for (int n = 0; n < kHead / 8; ++n) {
            ACCRUE_UNROLL
            for (int j = 0; j < 2; ++j) {
              float& value = state.output[s].at[n][2 * h + j][lane];
              value = Mul(value, inverse);
            }
          }
          const int row = first + SumRow(lane, 2 * h);
          if (lane % 4 != 0 || row >= args.op.sequence_length) return;
          log_sum_exp[row] = Mul(Fma(state.maximum[s][h][lane], args.scale2, Log2(sum[lane])), kLn2);
        });
      }
      StoreStripe<T>(state.output[s], 1.0f, out, first);
    }
  }

 private:
  // A head's last queries see the most keys and go first.
  ACCRUE_BODY static HeadPlace Place(const Args& args, int64_t block) {
    const int blocks = Blocks32(args.op.sequence_length, kQueries), heads = static_cast<int>(args.op.heads);
    const int row = static_cast<int>(block) / blocks, head = row % heads;
    return {row / heads, head, head / (heads / static_cast<int>(args.op.kv_heads)),
            (blocks - 1 - static_cast<int>(block) % blocks) * kQueries};
  }

  // Scores become weights: exp(score - maximum so far), zero where masked, and dropped. Earlier sums follow the
  // maximum.
  ACCRUE_BODY static void Softmax(const Args& args, const HeadPlace& at, int first_query, int first_key,
                                  Sums16<kKeys>& scores, RowPair& maximum, RowPair& sum, Sums16<kHead>& output) {
    const bool masks = first_key + kKeys - 1 > first_query;
    ACCRUE_UNROLL
    for (int h = 0; h < 2; ++h) {
      PerLane<float> largest;
      ForLanes([&](int lane) {
        largest[lane] = maximum[h][lane];
        // How many of this block's keys the row sees.
        const int seen = first_query - first_key + SumRow(lane, 2 * h) + 1;
        ACCRUE_UNROLL
        for (int n = 0; n < kKeys / 8; ++n) {
          ACCRUE_UNROLL
          for (int j = 0; j < 2; ++j) {
            float& score = scores.at[n][2 * h + j][lane];
            if (masks && SumColumn(lane, n, j) >= seen) score = FloatOf(0xff800000);
            largest[lane] = score > largest[lane] ? score : largest[lane];
          }
        }
      });
      largest = MaxOverLanes<4>(largest);
      ForLanes([&](int lane) {
        const float shift = Mul(largest[lane], args.scale2);
        const float rescale = Exp2(Fma(maximum[h][lane], args.scale2, -shift));
        maximum[h][lane] = largest[lane];
        float total = Mul(sum[h][lane], rescale);
        ACCRUE_UNROLL
        for (int n = 0; n < kKeys / 8; ++n) {
          ACCRUE_UNROLL
          for (int j = 0; j < 2; ++j) {
            float& score = scores.at[n][2 * h + j][lane];
            score = Exp2(Fma(score, args.scale2, -shift));
            total = Add(total, score);
          }
        }
        sum[h][lane] = total;
        ACCRUE_UNROLL
        for (int n = 0; n < kHead / 8; ++n) {
          ACCRUE_UNROLL
          for (int j = 0; j < 2; ++j) {
            output.at[n][2 * h + j][lane] = Mul(output.at[n][2 * h + j][lane], rescale);
          }
        }
      });
    }
    if (args.dropout.on) DropScores(args, at, first_query, first_key, scores);
  }

  ACCRUE_BODY static void DropScores(const Args& args, const HeadPlace& at, int first_query, int first_key,
                                     Sums16<kKeys>& scores) {
    ForLanes([&](int lane) {
      ACCRUE_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        ACCRUE_UNROLL
        for (int h = 0; h < 2; ++h) {
          float pair[2] = {scores.at[n][2 * h][lane], scores.at[n][2 * h + 1][lane]};
          Drop(args.dropout,
               ProbabilityOf(args.op, at.sequence, at.head, first_query + SumRow(lane, 2 * h),
                             first_key + SumColumn(lane, n, 0)),
               pair);
          scores.at[n][2 * h][lane] = pair[0];
          scores.at[n][2 * h + 1][lane] = pair[1];
        }
      }
    });
  }
};

}  // namespace accrue::cuda
