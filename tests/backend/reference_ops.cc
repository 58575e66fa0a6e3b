#include "tests/backend/reference_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace accrue {

uint16_t RoundToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float Bf16ToFloat(uint16_t value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

// By the definition: the nearest multiple of the spacing at its size.
uint16_t RoundToF16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7E00;
  const double magnitude = std::abs(static_cast<double>(value));
  int exponent = -14;
  while (exponent < 16 && magnitude >= std::ldexp(2.0, exponent)) ++exponent;
  if (exponent == 16) return sign | 0x7C00;
  const double steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));  // 2^10 to 2^11, less if subnormal
  return static_cast<uint16_t>(sign + static_cast<int>(steps) + (exponent + 14) * 1024);
}

float F16ToFloat(uint16_t value) {
  const int exponent = value >> 10 & 31, fraction = value & 1023;
  double magnitude = std::ldexp(exponent == 0 ? fraction : 1024 + fraction, std::max(exponent, 1) - 25);
  if (exponent == 31) magnitude = fraction == 0 ? HUGE_VAL : NAN;
  return static_cast<float>((value & 0x8000) != 0 ? -magnitude : magnitude);
}

double LoadElement(const Tensor& tensor, int64_t i) {
  if (tensor.dtype == DType::kF32) return static_cast<const float*>(tensor.data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(tensor.data)[i];
  return tensor.dtype == DType::kBF16 ? Bf16ToFloat(bits) : F16ToFloat(bits);
}

void StoreElement(const Tensor& tensor, int64_t i, double value) {
  const float rounded = static_cast<float>(value);
  if (tensor.dtype == DType::kF32) {
    static_cast<float*>(tensor.data)[i] = rounded;
  } else {
    static_cast<uint16_t*>(tensor.data)[i] = tensor.dtype == DType::kBF16 ? RoundToBf16(rounded) : RoundToF16(rounded);
  }
}

namespace {

constexpr double kGeluScale = 0.7978845608028653558798921198687637369517;  // sqrt(2 / pi)
constexpr double kGeluCubic = 0.044715;

double Gelu(double x) { return 0.5 * x * (1 + std::tanh(kGeluScale * (x + kGeluCubic * x * x * x))); }

double GeluDerivative(double x) {
  const double t = std::tanh(kGeluScale * (x + kGeluCubic * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kGeluScale * (1 + 3 * kGeluCubic * x * x);
}

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// What element e of a dropout's site is multiplied by: 0, or 1 / (1 - p).
double DropoutFactor(const Dropout& dropout, int64_t e) {
  if (dropout.probability == 0) return 1;
  const uint32_t word = DropoutBlock(dropout, static_cast<uint64_t>(e) / 4)[e % 4];
  return word < DropoutThreshold(dropout) ? DropoutScale(dropout) : 0;
}

int64_t WeightIndex(WeightLayout layout, int64_t in, int64_t out, int64_t i, int64_t o) {
  return layout == WeightLayout::kOutIn ? o * in + i : i * out + o;
}

std::vector<double> LoadAll(const Tensor& tensor, int64_t elements) {
  std::vector<double> values(elements);
  for (int64_t i = 0; i < elements; ++i) values[i] = LoadElement(tensor, i);
  return values;
}

class ReferenceOps : public ModelOps {
 public:
  void LinearForward(const LinearForwardArgs& a) override {
    const std::vector<double> x = LoadAll(a.x, a.rows * a.in), w = LoadAll(a.weight, a.in * a.out);
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int64_t o = 0; o < a.out; ++o) {
        double sum = a.bias ? LoadElement(a.bias, o) : 0;
        for (int64_t i = 0; i < a.in; ++i)
          sum += x[r * a.in + i] * w[WeightIndex(a.layout, a.in, a.out, i, o)];
        if (a.gelu_input) {
          StoreElement(a.gelu_input, r * a.out + o, sum);
          sum = Gelu(sum);
        }
        StoreElement(a.y, r * a.out + o, sum);
      }
    }
  }

  void LinearBackwardInput(const LinearBackwardInputArgs& a) override {
    ACCRUE_CHECK(!(a.accumulate && a.gelu_input));
    const std::vector<double> dy = LoadAll(a.dy, a.rows * a.out), w = LoadAll(a.weight, a.in * a.out);
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int64_t i = 0; i < a.in; ++i) {
        double sum = a.accumulate ? LoadElement(a.dx, r * a.in + i) : 0;
        for (int64_t o = 0; o < a.out; ++o)
          sum += dy[r * a.out + o] * w[WeightIndex(a.layout, a.in, a.out, i, o)];
        if (a.gelu_input) sum *= GeluDerivative(LoadElement(a.gelu_input, r * a.in + i));
        StoreElement(a.dx, r * a.in + i, sum);
      }
    }
  }

  void LinearBackwardWeight(const LinearBackwardWeightArgs& a) override {
    const std::vector<double> x = LoadAll(a.x, a.rows * a.in), dy = LoadAll(a.dy, a.rows * a.out);
    for (int64_t i = 0; i < a.in; ++i) {
      for (int64_t o = 0; o < a.out; ++o) {
        float& d = a.dweight[WeightIndex(a.layout, a.in, a.out, i, o)];
        double sum = a.accumulate ? d : 0;
        for (int64_t r = 0; r < a.rows; ++r) sum += x[r * a.in + i] * dy[r * a.out + o];
        d = static_cast<float>(sum);
      }
    }
    if (a.dbias == nullptr) return;
    for (int64_t o = 0; o < a.out; ++o) {
      double sum = 0;
      for (int64_t r = 0; r < a.rows; ++r) sum += dy[r * a.out + o];
      a.dbias[o] = static_cast<float>(sum);
    }
  }

  void EmbeddingForward(const EmbeddingForwardArgs& a) override {
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int64_t c = 0; c < a.width; ++c) {
        double value = LoadElement(a.token_table, a.tokens[r] * a.width + c);
        if (a.position_table) value += LoadElement(a.position_table, r % a.sequence_length * a.width + c);
        StoreElement(a.y, r * a.width + c, value * DropoutFactor(a.dropout, r * a.width + c));
      }
    }
  }

  void EmbeddingBackward(const EmbeddingBackwardArgs& a) override {
    std::vector<double> token(a.dtoken, a.dtoken + a.vocabulary * a.width), position(a.context * a.width);
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int64_t c = 0; c < a.width; ++c) {
        const double d = LoadElement(a.dy, r * a.width + c) * DropoutFactor(a.dropout, r * a.width + c);
        token[a.tokens[r] * a.width + c] += d;
        position[r % a.sequence_length * a.width + c] += d;
      }
    }
    std::copy(token.begin(), token.end(), a.dtoken);
    if (a.dposition != nullptr) std::copy(position.begin(), position.end(), a.dposition);
  }

  void NormForward(const NormForwardArgs& a) override {
    const bool layer_norm = a.kind == NormKind::kLayerNorm;
    std::vector<double> sum(a.width);
    for (int64_t r = 0; r < a.rows; ++r) {
      double mean = 0, square = 0;
      for (int64_t c = 0; c < a.width; ++c) {
        const int64_t e = r * a.width + c;
        sum[c] = LoadElement(a.x, e);
        if (a.delta) {
          StoreElement(a.sum, e, sum[c] + LoadElement(a.delta, e) * DropoutFactor(a.dropout, e));
          sum[c] = LoadElement(a.sum, e);
        }
        if (layer_norm) mean += sum[c] / a.width;
      }
      for (double value : sum) square += (value - mean) * (value - mean) / a.width;
      const double rstd = 1 / std::sqrt(square + a.epsilon);
      if (layer_norm) a.mean[r] = static_cast<float>(mean);
      a.rstd[r] = static_cast<float>(rstd);
      for (int64_t c = 0; c < a.width; ++c) {
        const double y = (sum[c] - mean) * rstd * LoadElement(a.gamma, c);
        StoreElement(a.y, r * a.width + c, a.beta ? y + LoadElement(a.beta, c) : y);
      }
    }
  }

  void NormBackward(const NormBackwardArgs& a) override {
    const bool layer_norm = a.kind == NormKind::kLayerNorm;
    std::vector<double> normed(a.width), scaled(a.width), dgamma(a.width), dbeta(a.width);
    for (int64_t r = 0; r < a.rows; ++r) {
      double mean_scaled = 0, mean_product = 0;
      const double mean = layer_norm ? a.mean[r] : 0;
      for (int64_t c = 0; c < a.width; ++c) {
        const double dy = LoadElement(a.dy, r * a.width + c);
        normed[c] = (LoadElement(a.x, r * a.width + c) - mean) * a.rstd[r];
        scaled[c] = dy * LoadElement(a.gamma, c);
        dgamma[c] += dy * normed[c];
        dbeta[c] += dy;
        if (layer_norm) mean_scaled += scaled[c] / a.width;
        mean_product += scaled[c] * normed[c] / a.width;
      }
      for (int64_t c = 0; c < a.width; ++c) {
        const int64_t e = r * a.width + c;
        double d = (scaled[c] - mean_scaled - normed[c] * mean_product) * a.rstd[r];
        if (!a.first) d += LoadElement(a.dresidual, e);
        StoreElement(a.dresidual, e, d);
        if (a.ddelta) StoreElement(a.ddelta, e, d * DropoutFactor(a.dropout, e));
      }
    }
    std::copy(dgamma.begin(), dgamma.end(), a.dgamma);
    if (a.dbeta != nullptr) std::copy(dbeta.begin(), dbeta.end(), a.dbeta);
  }

  void Rope(const RopeArgs& a) override {
    const int64_t half = a.head_size / 2;
    for (int64_t r = 0; r < a.rows; ++r) {
      const int64_t position = r % a.sequence_length;
      for (int64_t h = 0; h < a.heads; ++h) {
        for (int64_t i = 0; i < half; ++i) {
          const int64_t first = r * a.stride + h * a.head_size + i, second = first + half;
          const double cosine = a.cosine[position * half + i];
          const double sine = a.sine[position * half + i] * (a.inverse ? -1.0 : 1.0);
          const double x = LoadElement(a.x, first), y = LoadElement(a.x, second);
          StoreElement(a.x, first, x * cosine - y * sine);
          StoreElement(a.x, second, y * cosine + x * sine);
        }
      }
    }
  }

  void AttentionForward(const AttentionArgs& a) override {
    const int64_t T = a.sequence_length, group = a.heads / a.kv_heads;
    std::vector<double> scores(T);
    for (int64_t b = 0; b < a.batch; ++b) {
      for (int64_t h = 0; h < a.heads; ++h) {
        for (int64_t r = 0; r < T; ++r) {
          const double log_sum_exp = Scores(a, b, h, r, scores);
          a.log_sum_exp[(b * a.heads + h) * T + r] = static_cast<float>(log_sum_exp);
          for (int64_t i = 0; i < a.head_size; ++i) {
            double sum = 0;
            for (int64_t c = 0; c <= r; ++c) {
              sum += std::exp(scores[c] - log_sum_exp) *
                     DropoutFactor(a.dropout, ((b * a.heads + h) * T + r) * T + c) *
                     LoadElement(a.v, (b * T + c) * a.v_stride + h / group * a.head_size + i);
            }
            StoreElement(a.out, (b * T + r) * a.out_stride + h * a.head_size + i, sum);
          }
        }
      }
    }
  }

  void AttentionBackward(const AttentionArgs& a) override {
    for (int64_t b = 0; b < a.batch; ++b) {
      for (int64_t kv = 0; kv < a.kv_heads; ++kv) AttentionBackwardGroup(a, b, kv);
    }
  }

  void SwiGluForward(const SwiGluArgs& a) override {
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int64_t c = 0; c < a.hidden; ++c) {
        const double gate = LoadElement(a.gate, r * a.gate_stride + c),
                     up = LoadElement(a.up, r * a.gate_stride + c);
        StoreElement(a.y, r * a.hidden + c, gate * Sigmoid(gate) * up);
      }
    }
  }

  void SwiGluBackward(const SwiGluArgs& a) override {
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int64_t c = 0; c < a.hidden; ++c) {
        const double gate = LoadElement(a.gate, r * a.gate_stride + c),
                     up = LoadElement(a.up, r * a.gate_stride + c);
        const double dy = LoadElement(a.dy, r * a.hidden + c), s = Sigmoid(gate);
        StoreElement(a.dgate, r * a.gate_stride + c, dy * up * s * (1 + gate * (1 - s)));
        StoreElement(a.dup, r * a.gate_stride + c, dy * gate * s);
      }
    }
  }

  void CrossEntropy(const CrossEntropyArgs& a) override {
    for (int64_t r = 0; r < a.rows; ++r) {
      const Tensor& logits = a.logits;
      const int64_t row = r * a.vocabulary;
      a.losses[r] = 0;
      if (a.targets[r] < 0) {
        for (int64_t c = 0; c < a.vocabulary && a.write_gradient; ++c) StoreElement(logits, row + c, 0);
        continue;
      }
      double maximum = LoadElement(logits, row), sum = 0;
      for (int64_t c = 1; c < a.vocabulary; ++c) maximum = std::max(maximum, LoadElement(logits, row + c));
      for (int64_t c = 0; c < a.vocabulary; ++c) sum += std::exp(LoadElement(logits, row + c) - maximum);
      a.losses[r] = std::log(sum) + maximum - LoadElement(logits, row + a.targets[r]);
      for (int64_t c = 0; c < a.vocabulary && a.write_gradient; ++c) {
        const double probability = std::exp(LoadElement(logits, row + c) - maximum) / sum;
        StoreElement(logits, row + c, a.gradient_scale * (probability - (c == a.targets[r] ? 1 : 0)));
      }
    }
  }

  void Convert(const float* from, const Tensor& to, int64_t elements) override {
    for (int64_t i = 0; i < elements; ++i) StoreElement(to, i, from[i]);
  }

 private:
  // Scaled scores of query row r against keys 0..r; their log-sum-exp.
  static double Scores(const AttentionArgs& a, int64_t b, int64_t h, int64_t r, std::vector<double>& scores) {
    const int64_t T = a.sequence_length, kv = h / (a.heads / a.kv_heads);
    double maximum = -INFINITY, sum = 0;
    for (int64_t c = 0; c <= r; ++c) {
      double dot = 0;
      for (int64_t i = 0; i < a.head_size; ++i) {
        dot += LoadElement(a.q, (b * T + r) * a.q_stride + h * a.head_size + i) *
               LoadElement(a.k, (b * T + c) * a.k_stride + kv * a.head_size + i);
      }
      scores[c] = dot / std::sqrt(static_cast<double>(a.head_size));
      maximum = std::max(maximum, scores[c]);
    }
    for (int64_t c = 0; c <= r; ++c) sum += std::exp(scores[c] - maximum);
    return maximum + std::log(sum);
  }

  // dq of the query heads that read key/value head kv, and its dk and dv.
  static void AttentionBackwardGroup(const AttentionArgs& a, int64_t b, int64_t kv) {
    const int64_t T = a.sequence_length, S = a.head_size, group = a.heads / a.kv_heads;
    const double scale = 1 / std::sqrt(static_cast<double>(S));
    std::vector<double> dk(T * S), dv(T * S), dq(S), scores(T), kept(T), dkept(T), probabilities(T);
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
      for (int64_t r = 0; r < T; ++r) {
        const double log_sum_exp = Scores(a, b, h, r, scores);
        const int64_t q_row = (b * T + r) * a.q_stride + h * S, out_row = (b * T + r) * a.out_stride + h * S;
        double mean = 0;
        for (int64_t c = 0; c <= r; ++c) {
          const double factor = DropoutFactor(a.dropout, ((b * a.heads + h) * T + r) * T + c);
          probabilities[c] = std::exp(scores[c] - log_sum_exp);
          kept[c] = probabilities[c] * factor;
          dkept[c] = 0;
          for (int64_t i = 0; i < S; ++i) {
            const double dout = LoadElement(a.dout, out_row + i);
            dv[c * S + i] += kept[c] * dout;
            dkept[c] += dout * LoadElement(a.v, (b * T + c) * a.v_stride + kv * S + i);
          }
          dkept[c] *= factor;
          mean += probabilities[c] * dkept[c];
        }
        std::fill(dq.begin(), dq.end(), 0);
        for (int64_t c = 0; c <= r; ++c) {
          const double dscore = probabilities[c] * (dkept[c] - mean) * scale;
          for (int64_t i = 0; i < S; ++i) {
            dq[i] += dscore * LoadElement(a.k, (b * T + c) * a.k_stride + kv * S + i);
            dk[c * S + i] += dscore * LoadElement(a.q, q_row + i);
          }
        }
        for (int64_t i = 0; i < S; ++i) StoreElement(a.dq, q_row + i, dq[i]);
      }
    }
    for (int64_t c = 0; c < T; ++c) {
      for (int64_t i = 0; i < S; ++i) {
        StoreElement(a.dk, (b * T + c) * a.k_stride + kv * S + i, dk[c * S + i]);
        StoreElement(a.dv, (b * T + c) * a.v_stride + kv * S + i, dv[c * S + i]);
      }
    }
  }
};

class HostBuffer : public DeviceBuffer {
 public:
  explicit HostBuffer(size_t size_bytes)
      : size_bytes_(size_bytes), data_(std::aligned_alloc(64, (size_bytes + 63) / 64 * 64 + 64)) {
    ACCRUE_CHECK(data_ != nullptr);
    std::memset(data_, 0, size_bytes);
  }
  ~HostBuffer() override { std::free(data_); }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  void* data() const override { return data_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  size_t size_bytes_;
  void* data_;
};

class ReferenceBackend : public Backend {
 public:
  explicit ReferenceBackend(std::unique_ptr<StateOps> state_ops)
      : model_ops_(CreateReferenceOps()), state_ops_(std::move(state_ops)) {}

  std::string DeviceName() const override { return "reference"; }
  std::string NumericClass(DType precision) const override {
    return absl::StrCat("reference ", NameOf(precision));
  }
  bool Supports(DType) const override { return true; }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes) override {
    return std::unique_ptr<DeviceBuffer>(new HostBuffer(size_bytes));
  }
  void CopyToHost(void* host, const void* device, size_t size_bytes) override {
    std::memcpy(host, device, size_bytes);
  }
  void CopyToDevice(void* device, const void* host, size_t size_bytes) override {
    std::memcpy(device, host, size_bytes);
  }
  void Copy(void* to, const void* from, size_t size_bytes) override { std::memmove(to, from, size_bytes); }
  void Zero(void* device, size_t size_bytes) override { std::memset(device, 0, size_bytes); }
  void Synchronize() override {}
  ModelOps& model_ops() override { return *model_ops_; }
  StateOps& state_ops() override {
    ACCRUE_CHECK(state_ops_ != nullptr);
    return *state_ops_;
  }

 private:
  std::unique_ptr<ModelOps> model_ops_;
  std::unique_ptr<StateOps> state_ops_;
};

}  // namespace

std::unique_ptr<ModelOps> CreateReferenceOps() { return std::make_unique<ReferenceOps>(); }

std::unique_ptr<Backend> CreateReferenceBackend(std::unique_ptr<StateOps> state_ops) {
  return std::make_unique<ReferenceBackend>(std::move(state_ops));
}

}  // namespace accrue
