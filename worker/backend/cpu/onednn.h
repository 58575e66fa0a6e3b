// What differs between oneDNN 2 (Debian 12) and 3 (Ubuntu 24.04), behind one set of names.
#pragma once

#include <dnnl.h>

#include <cstdint>

namespace accrue::cpu {

#if DNNL_VERSION_MAJOR >= 3

using MatrixHandle = const_dnnl_memory_desc_t;

// A strided matrix.
class MatrixDesc {
 public:
  MatrixDesc(int64_t rows, int64_t columns, dnnl_data_type_t type, int64_t row_stride, int64_t column_stride) {
    const dnnl_dims_t dims = {rows, columns}, strides = {row_stride, column_stride};
    status_ = dnnl_memory_desc_create_with_strides(&desc_, 2, dims, type, strides);
  }
  ~MatrixDesc() { dnnl_memory_desc_destroy(desc_); }
  MatrixDesc(const MatrixDesc&) = delete;
  MatrixDesc& operator=(const MatrixDesc&) = delete;

  dnnl_status_t status() const { return status_; }  // dnnl_success, or why there is no descriptor
  MatrixHandle get() const { return desc_; }

 private:
  dnnl_status_t status_;
  dnnl_memory_desc_t desc_ = nullptr;
};

// c = a b (+ bias, where there is one)
inline dnnl_status_t CreateProduct(dnnl_primitive_desc_t* product, dnnl_engine_t engine, MatrixHandle a, MatrixHandle b,
                                   MatrixHandle bias, MatrixHandle c, dnnl_primitive_attr_t attributes) {
  return dnnl_matmul_primitive_desc_create(product, engine, a, b, bias, c, attributes);
}

inline dnnl_status_t AppendSum(dnnl_post_ops_t post_ops) {
  return dnnl_post_ops_append_sum(post_ops, 1.0f, 0, dnnl_data_type_undef);
}

#else

using MatrixHandle = const dnnl_memory_desc_t*;

class MatrixDesc {
 public:
  MatrixDesc(int64_t rows, int64_t columns, dnnl_data_type_t type, int64_t row_stride, int64_t column_stride) {
    const dnnl_dims_t dims = {rows, columns}, strides = {row_stride, column_stride};
    status_ = dnnl_memory_desc_init_by_strides(&desc_, 2, dims, type, strides);
  }
  MatrixDesc(const MatrixDesc&) = delete;
  MatrixDesc& operator=(const MatrixDesc&) = delete;

  dnnl_status_t status() const { return status_; }
  MatrixHandle get() const { return &desc_; }

 private:
  dnnl_status_t status_;
  dnnl_memory_desc_t desc_;
};

inline dnnl_status_t CreateProduct(dnnl_primitive_desc_t* product, dnnl_engine_t engine, MatrixHandle a, MatrixHandle b,
                                   MatrixHandle bias, MatrixHandle c, dnnl_primitive_attr_t attributes) {
  dnnl_matmul_desc_t operation;
  if (dnnl_status_t status = dnnl_matmul_desc_init(&operation, a, b, bias, c); status != dnnl_success) return status;
  return dnnl_primitive_desc_create(product, &operation, attributes, engine, nullptr);
}

inline dnnl_status_t AppendSum(dnnl_post_ops_t post_ops) { return dnnl_post_ops_append_sum(post_ops, 1.0f); }

#endif

}  // namespace accrue::cpu
