#include "worker/backend/cpu/gemm.h"

#include <algorithm>
#include <cstdio>

#include "absl/hash/hash.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "worker/backend/cpu/onednn.h"
#include "worker/backend/cpu/thread_pool.h"

namespace accrue::cpu {
namespace {

// Shapes are ours and checked by the operations: what oneDNN refuses here is a programmer's error or no memory.
void Require(dnnl_status_t status) {
  if (status != dnnl_success) std::fprintf(stderr, "oneDNN status %d\n", static_cast<int>(status));
  ACCRUE_CHECK(status == dnnl_success);
}

dnnl_data_type_t TypeOf(DType dtype) {
  ACCRUE_CHECK(dtype != DType::kF16);  // the library does not multiply it here: linear_f16.cc
  return dtype == DType::kF32 ? dnnl_f32 : dnnl_bf16;
}

struct Matrix : MatrixDesc {
  Matrix(int64_t rows, int64_t columns, DType dtype, int64_t row_stride, int64_t column_stride)
      : MatrixDesc(rows, columns, TypeOf(dtype), row_stride, column_stride) {
    Require(status());
  }
};

dnnl_memory_t MemoryFor(MatrixHandle desc, dnnl_engine_t engine) {
  dnnl_memory_t memory = nullptr;
  Require(dnnl_memory_create(&memory, desc, engine, DNNL_MEMORY_NONE));
  return memory;
}

}  // namespace

size_t GemmShapeHash::operator()(const GemmShape& s) const {
  return absl::HashOf(s.m, s.n, s.k, s.a_row, s.a_column, s.b_row, s.b_column, s.c_row, s.input, s.output,
                      s.bias_type, s.bias, s.accumulate);
}

GemmPlan::GemmPlan(const GemmShape& shape, dnnl_engine_t engine, dnnl_stream_t stream, int threads)
    : stream_(stream), memories_(threads) {
  PrepareComputeThread();  // oneDNN compiles for as many threads as OpenMP has
  const Matrix a(shape.m, shape.k, shape.input, shape.a_row, shape.a_column);
  const Matrix b(shape.k, shape.n, shape.input, shape.b_row, shape.b_column);
  const Matrix c(shape.m, shape.n, shape.output, shape.c_row, 1);
  const Matrix bias(1, shape.n, shape.bias_type, shape.n, 1);

  dnnl_primitive_attr_t attributes = nullptr;
  Require(dnnl_primitive_attr_create(&attributes));
  Require(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
  if (shape.accumulate) {
    dnnl_post_ops_t post_ops = nullptr;
    Require(dnnl_post_ops_create(&post_ops));
    Require(AppendSum(post_ops));
    Require(dnnl_primitive_attr_set_post_ops(attributes, post_ops));
    Require(dnnl_post_ops_destroy(post_ops));
  }
  dnnl_primitive_desc_t desc = nullptr;
  Require(CreateProduct(&desc, engine, a.get(), b.get(), shape.bias ? bias.get() : nullptr, c.get(), attributes));
  Require(dnnl_primitive_create(&primitive_, desc));
  const MatrixHandle scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
  scratch_bytes_ = dnnl_memory_desc_get_size(scratch);
  for (Memories& memories : memories_) {
    memories.a = MemoryFor(a.get(), engine);
    memories.b = MemoryFor(b.get(), engine);
    memories.c = MemoryFor(c.get(), engine);
    if (shape.bias) memories.bias = MemoryFor(bias.get(), engine);
    if (scratch_bytes_ > 0) memories.scratch = MemoryFor(scratch, engine);
  }
  Require(dnnl_primitive_desc_destroy(desc));
  Require(dnnl_primitive_attr_destroy(attributes));
}

GemmPlan::~GemmPlan() {
  for (const Memories& memories : memories_) {
    for (dnnl_memory_t memory : {memories.a, memories.b, memories.c, memories.bias, memories.scratch}) {
      if (memory != nullptr) dnnl_memory_destroy(memory);
    }
  }
  dnnl_primitive_destroy(primitive_);
}

void GemmPlan::Run(int thread, const void* a, const void* b, void* c, const void* bias, void* scratch) const {
  const Memories& memories = memories_[thread];
  dnnl_exec_arg_t args[5];
  int count = 0;
  const auto bind = [&](int name, dnnl_memory_t memory, const void* data) {
    Require(dnnl_memory_set_data_handle(memory, const_cast<void*>(data)));
    args[count++] = {name, memory};
  };
  bind(DNNL_ARG_SRC, memories.a, a);
  bind(DNNL_ARG_WEIGHTS, memories.b, b);
  bind(DNNL_ARG_DST, memories.c, c);
  if (memories.bias != nullptr) bind(DNNL_ARG_BIAS, memories.bias, bias);
  if (memories.scratch != nullptr) bind(DNNL_ARG_SCRATCHPAD, memories.scratch, scratch);
  Require(dnnl_primitive_execute(primitive_, stream_, count, args));
}

Gemm::Gemm(int threads) : threads_(threads) {
  Require(dnnl_engine_create(&engine_, dnnl_cpu, 0));
  Require(dnnl_stream_create(&stream_, engine_, dnnl_stream_in_order));
}

Gemm::~Gemm() {
  plans_.clear();
  dnnl_stream_destroy(stream_);
  dnnl_engine_destroy(engine_);
}

const GemmPlan& Gemm::Get(const GemmShape& shape) {
  auto found = plans_.find(shape);
  if (found == plans_.end()) {
    found = plans_.emplace(shape, std::make_unique<GemmPlan>(shape, engine_, stream_, threads_)).first;
    scratch_bytes_ = std::max(scratch_bytes_, found->second->scratch_bytes());
  }
  return *found->second;
}

namespace {

std::string InstructionSetName() {
  switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41: return "sse41";
    case dnnl_cpu_isa_avx: return "avx";
    case dnnl_cpu_isa_avx2: return "avx2";
    case dnnl_cpu_isa_avx2_vnni: return "avx2_vnni";
    case dnnl_cpu_isa_avx512_core: return "avx512_core";
    case dnnl_cpu_isa_avx512_core_vnni: return "avx512_core_vnni";
    case dnnl_cpu_isa_avx512_core_bf16: return "avx512_core_bf16";
    case dnnl_cpu_isa_avx512_core_amx: return "avx512_core_amx";
#if DNNL_VERSION_MAJOR >= 3
    case dnnl_cpu_isa_avx2_vnni_2: return "avx2_vnni_2";
    case dnnl_cpu_isa_avx512_core_fp16: return "avx512_core_fp16";
    case dnnl_cpu_isa_avx512_core_amx_fp16: return "avx512_core_amx_fp16";
#endif
    default: return absl::StrCat("isa", static_cast<int>(dnnl_get_effective_cpu_isa()));
  }
}

}  // namespace

std::string GemmLibraryName(DType precision) {
  const dnnl_version_t* version = dnnl_version();
  std::string isa = InstructionSetName();
  // What is beyond avx512_core multiplies narrower types only. Products of fp16 are fp32's.
  if (precision != DType::kBF16 && absl::StrContains(isa, "avx512_core")) isa = "avx512_core";
  return absl::StrCat("onednn-", version->major, ".", version->minor, ".", version->patch, "-", isa);
}

bool GemmSupportsBf16() {
  // Each instruction set's bits hold those of the sets that it contains.
  return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

}  // namespace accrue::cpu
