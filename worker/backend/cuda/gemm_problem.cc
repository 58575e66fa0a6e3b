#include "worker/backend/cuda/gemm_problem.h"

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace accrue::cuda {
namespace {

const char* EpilogueText(GemmEpilogue epilogue) {
  switch (epilogue) {
    case GemmEpilogue::kNone:
      return "";
    case GemmEpilogue::kBias:
      return " bias";
    case GemmEpilogue::kGeluAux:
      return " gelu-aux";
    case GemmEpilogue::kGeluAuxBias:
      return " gelu-aux-bias";
    case GemmEpilogue::kGeluGradient:
      return " gelu-gradient";
  }
  return " ?";
}

}  // namespace

size_t GemmProblemHash::operator()(const GemmProblem& p) const {
  return absl::HashOf(p.m, p.n, p.k, p.transpose_a, p.transpose_b, p.lda, p.ldb, p.ldd, p.input, p.output, p.tf32, p.accumulate,
                      p.epilogue, p.align_a, p.align_b, p.align_d);
}

std::string GemmText(const GemmProblem& p) {
  return absl::StrCat(p.m, "x", p.n, "x", p.k, " ", p.transpose_a ? "t" : "n", p.transpose_b ? "t" : "n", " ",
                      p.tf32 ? "tf32" : NameOf(p.input), " to ", NameOf(p.output), p.accumulate ? " added" : "",
                      EpilogueText(p.epilogue), ", ld ", p.lda, " ", p.ldb, " ", p.ldd, ", aligned ", p.align_a, " ",
                      p.align_b, " ", p.align_d);
}

}  // namespace accrue::cuda
