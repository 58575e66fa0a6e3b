#include "worker/backend/cuda/cuda_gemm.h"

#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/hash.h"
#include "common/status.h"

namespace accrue::cuda {
namespace {

// What NVIDIA advises for Hopper. Fixed, since what fits is part of the choice.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;
// How many algorithms the heuristics are asked for.
constexpr int kCandidates = 16;
// Prompts of every length bring new problems: beyond this many all are forgotten.
constexpr size_t kMostPlans = 4096;

void RequireLt(cublasStatus_t status, const char* call, const GemmProblem& problem,
               const std::source_location where = std::source_location::current()) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s:%u: the GPU's library failed: %s: %s (%s); the product %s; this worker ends\n",
               where.file_name(), where.line(), call, cublasLtGetStatusString(status), cublasLtGetStatusName(status),
               GemmText(problem).c_str());
  std::abort();
}

cudaDataType_t TypeOf(DType type) {
  return type == DType::kF32 ? CUDA_R_32F : type == DType::kBF16 ? CUDA_R_16BF : CUDA_R_16F;
}

cublasLtEpilogue_t EpilogueOf(GemmEpilogue epilogue) {
  switch (epilogue) {
    case GemmEpilogue::kNone:
      return CUBLASLT_EPILOGUE_DEFAULT;
    case GemmEpilogue::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case GemmEpilogue::kGeluAux:
      return CUBLASLT_EPILOGUE_GELU_AUX;
    case GemmEpilogue::kGeluAuxBias:
      return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case GemmEpilogue::kGeluGradient:
      return CUBLASLT_EPILOGUE_DGELU;
  }
  std::abort();
}

bool HasAux(GemmEpilogue epilogue) {
  return epilogue == GemmEpilogue::kGeluAux || epilogue == GemmEpilogue::kGeluAuxBias ||
         epilogue == GemmEpilogue::kGeluGradient;
}
bool HasBias(GemmEpilogue epilogue) {
  return epilogue == GemmEpilogue::kBias || epilogue == GemmEpilogue::kGeluAuxBias;
}

template <typename T>
void Set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value, const char* name,
         const GemmProblem& problem) {
  RequireLt(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)), name, problem);
}

template <typename T>
void Prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value,
            const char* name, const GemmProblem& problem) {
  RequireLt(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)), name, problem);
}

cublasLtMatrixLayout_t Layout(DType type, int64_t rows, int64_t columns, int64_t ld, const GemmProblem& problem) {
  cublasLtMatrixLayout_t layout = nullptr;
  RequireLt(cublasLtMatrixLayoutCreate(&layout, TypeOf(type), static_cast<uint64_t>(rows),
                                       static_cast<uint64_t>(columns), ld),
            "cublasLtMatrixLayoutCreate", problem);
  return layout;
}

// A setting of an algorithm; 0 where it has none such.
template <typename T>
T Config(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  size_t written = 0;
  if (cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof(value), &written) !=
      CUBLAS_STATUS_SUCCESS) {
    return T{};
  }
  return value;
}

uint64_t NumericalFlags(const cublasLtMatmulAlgo_t& algorithm) {
  uint64_t flags = 0;
  size_t written = 0;
  if (cublasLtMatmulAlgoCapGetAttribute(&algorithm, CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS, &flags, sizeof(flags),
                                        &written) != CUBLAS_STATUS_SUCCESS) {
    return 0;
  }
  return flags;
}

bool IsAllowed(const GemmProblem& problem, const cublasLtMatmulHeuristicResult_t& candidate) {
  if (candidate.state != CUBLAS_STATUS_SUCCESS || candidate.workspaceSize > kWorkspaceBytes) return false;
  const auto scheme = Config<uint32_t>(candidate.algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  if (scheme != CUBLASLT_REDUCTION_SCHEME_NONE && scheme != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) return false;
  return problem.tf32 || (NumericalFlags(candidate.algo) & CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_TF32) == 0;
}

std::string AlgorithmText(const cublasLtMatmulAlgo_t& algorithm) {
  return absl::StrCat("id ", Config<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID), " tile ",
                      Config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID), " stages ",
                      Config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID), " split-k ",
                      Config<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), " scheme ",
                      Config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME), " swizzle ",
                      Config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING), " option ",
                      Config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION), " inner ",
                      Config<uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID), " cluster ",
                      Config<uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID), " flags ",
                      NumericalFlags(algorithm));
}

// Forward, input gradient and weight gradient of a linear of GPT-2's sizes, one with a long K and a small output, and
// the head's: what the heuristics answer differently for.
std::vector<GemmProblem> FingerprintProblems(GemmKind kind) {
  const bool tf32 = kind == GemmKind::kTf32;
  std::vector<DType> types = {DType::kF32, DType::kBF16};
  if (kind != GemmKind::kFp32AndBf16) types = {tf32 ? DType::kF32 : DType::kF16};
  std::vector<GemmProblem> problems;
  for (const DType type : types) {
    const auto add = [&](int64_t m, int64_t n, int64_t k, bool ta, bool tb, DType output, GemmEpilogue epilogue) {
      problems.push_back({.m = m, .n = n, .k = k, .transpose_a = ta, .transpose_b = tb, .lda = ta ? k : m,
                          .ldb = tb ? n : k, .ldd = m, .input = type, .output = output, .tf32 = tf32, .epilogue = epilogue,
                          .align_a = kMostGemmAlignment, .align_b = kMostGemmAlignment, .align_d = kMostGemmAlignment});
    };
    add(3072, 8192, 768, false, false, type, GemmEpilogue::kBias);
    add(768, 8192, 3072, true, false, type, GemmEpilogue::kNone);
    add(3072, 768, 8192, false, true, DType::kF32, GemmEpilogue::kNone);
    add(64, 64, 16384, false, true, DType::kF32, GemmEpilogue::kNone);
    add(50257, 256, 768, true, false, type, GemmEpilogue::kNone);
  }
  return problems;
}

}  // namespace

CudaGemm::Plan::~Plan() {
  if (a != nullptr) cublasLtMatrixLayoutDestroy(a);
  if (b != nullptr) cublasLtMatrixLayoutDestroy(b);
  if (d != nullptr) cublasLtMatrixLayoutDestroy(d);
  if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
}

absl::StatusOr<std::unique_ptr<CudaGemm>> CudaGemm::Create(CudaDevice& device) {
  if (cublasLtGetVersion() / 10000 != CUBLAS_VER_MAJOR) {
    return absl::FailedPreconditionError(absl::StrCat("cuBLASLt is of another major version: found ",
                                                      cublasLtGetVersion(), ", needed is ", CUBLAS_VER_MAJOR, "xxxx"));
  }
  device.Stream();  // the handle belongs to the current device
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = cublasLtCreate(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return absl::FailedPreconditionError(absl::StrCat("cuBLASLt ", cublasLtGetVersion(), " does not start: cublasLtCreate: ",
                                                      cublasLtGetStatusString(status)));
  }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> workspace = device.AllocateApart(kWorkspaceBytes);
  if (!workspace.ok()) {
    cublasLtDestroy(handle);
    return Annotate(workspace.status(), "the workspace of matrix products");
  }
  return std::unique_ptr<CudaGemm>(new CudaGemm(device, handle, *std::move(workspace)));
}

CudaGemm::CudaGemm(CudaDevice& device, cublasLtHandle_t handle, std::unique_ptr<DeviceBuffer> workspace)
    : device_(device), handle_(handle), workspace_(std::move(workspace)) {}

CudaGemm::~CudaGemm() {
  plans_.clear();
  cublasLtDestroy(handle_);
}

void CudaGemm::Describe(const GemmProblem& p, Plan& plan) const {
  RequireLt(cublasLtMatmulDescCreate(&plan.operation, p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                     CUDA_R_32F), "cublasLtMatmulDescCreate", p);
  const cublasOperation_t op_a = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t op_b = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  Set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(op_a), "set TRANSA", p);
  Set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, static_cast<int32_t>(op_b), "set TRANSB", p);
  Set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(EpilogueOf(p.epilogue)), "set EPILOGUE", p);
  if (HasBias(p.epilogue)) {
    Set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(TypeOf(p.output)),
        "set BIAS_DATA_TYPE", p);
  }
  if (HasAux(p.epilogue)) Set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.ldd, "set EPILOGUE_AUX_LD", p);
  plan.a = Layout(p.input, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda, p);
  plan.b = Layout(p.input, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb, p);
  plan.d = Layout(p.output, p.m, p.n, p.ldd, p);
}

void CudaGemm::SetPointers(const GemmProblem& p, const GemmOperands& operands, const Plan& plan) const {
  if (HasBias(p.epilogue)) Set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias, "set BIAS_POINTER", p);
  if (HasAux(p.epilogue)) {
    Set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, operands.aux, "set EPILOGUE_AUX_POINTER", p);
  }
}

bool CudaGemm::ChooseAlgorithm(const GemmProblem& p, Plan& plan) const {
  cublasLtMatmulPreference_t preference = nullptr;
  RequireLt(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", p);
  Prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes}, "prefer workspace", p);
  Prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
         "prefer reduction scheme", p);
  Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(p.align_a),
         "prefer alignment of A", p);
  Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(p.align_b),
         "prefer alignment of B", p);
  Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(p.align_d),
         "prefer alignment of C", p);
  Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(p.align_d),
         "prefer alignment of D", p);
  cublasLtMatmulHeuristicResult_t candidates[kCandidates] = {};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.a, plan.b, plan.d, plan.d,
                                                               preference, kCandidates, candidates, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  // Some combinations of types and epilogue are refused as a wrong argument instead of finding nothing.
  const bool is_refused = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
  if (!is_refused) RequireLt(status, "cublasLtMatmulAlgoGetHeuristic", p);
  for (int i = 0; i < found; ++i) {
    if (!IsAllowed(p, candidates[i])) continue;
    plan.algorithm = candidates[i].algo;
    return true;
  }
  if (!HasAux(p.epilogue)) {  // nothing else will compute it
    std::fprintf(stderr, "cublasLtMatmulAlgoGetHeuristic: %s, %d algorithms, none by the rules, for %s\n",
                 cublasLtGetStatusName(status), found, GemmText(p).c_str());
    for (int i = 0; i < found; ++i) {
      std::fprintf(stderr, "  state %d, workspace %zu bytes, %s\n", static_cast<int>(candidates[i].state),
                   candidates[i].workspaceSize, AlgorithmText(candidates[i].algo).c_str());
    }
  }
  return false;
}

const CudaGemm::Plan& CudaGemm::PlanFor(const GemmProblem& problem, const GemmOperands& operands) {
  const auto found = plans_.find(problem);
  if (found != plans_.end()) return *found->second;
  if (plans_.size() >= kMostPlans) plans_.clear();
  auto plan = std::make_unique<Plan>();
  Describe(problem, *plan);
  SetPointers(problem, operands, *plan);
  plan->exists = ChooseAlgorithm(problem, *plan);
  return *plans_.emplace(problem, std::move(plan)).first->second;
}

bool CudaGemm::TryMultiply(const GemmProblem& problem, const GemmOperands& operands) {
  if (problem.m == 0 || problem.n == 0) return true;
  const cudaStream_t stream = device_.Stream();
  const Plan& plan = PlanFor(problem, operands);
  if (!plan.exists) return false;
  SetPointers(problem, operands, plan);
  const float alpha = 1, beta = problem.accumulate ? 1 : 0;
  RequireLt(cublasLtMatmul(handle_, plan.operation, &alpha, operands.a, plan.a, operands.b, plan.b, &beta, operands.d,
                           plan.d, operands.d, plan.d, &plan.algorithm, workspace_->data(), kWorkspaceBytes, stream),
            "cublasLtMatmul", problem);
  return true;
}

std::string CudaGemm::NumericName(GemmKind kind) {
  std::string algorithms;
  // Heuristics look at the pointers' alignment only by what the problem says of it.
  const GemmOperands operands{.a = workspace_->data(), .b = workspace_->data(), .d = workspace_->data(),
                              .bias = workspace_->data()};
  for (const GemmProblem& problem : FingerprintProblems(kind)) {
    const Plan& plan = PlanFor(problem, operands);
    absl::StrAppend(&algorithms, GemmText(problem), ": ", plan.exists ? AlgorithmText(plan.algorithm) : "none", "\n");
  }
  const size_t version = cublasLtGetVersion();
  return absl::StrCat("cublaslt-", version / 10000, ".", version % 10000 / 100, ".", version % 100, "-",
                      HashBytes(algorithms.data(), algorithms.size()).Hex().substr(0, 8));
}

}  // namespace accrue::cuda
