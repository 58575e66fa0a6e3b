// Safetensors files: a reader that treats its input as hostile, and a streaming writer.
//
//   u64 header length (little-endian), JSON header, data. The header maps each tensor's name to
//   {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, offsets counted from the data's begin,
//   and
//   "__metadata__" to strings.
//
// Thread-safety: a SafetensorsFile may be read by several threads; a writer is used by one.
// Ownership: a SafetensorsFile keeps its file mapped; pointers into it live as long. Nobody may truncate the
// file meanwhile.
//
// Invariants of an open file: names are unique; every tensor's bytes are its shape times its dtype; the
// tensors' ranges, in order, are the whole data part without gap or overlap.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/file_system.h"
#include "common/hash.h"

namespace accrue {

enum class SafetensorsDType { kBool, kU8, kI8, kI16, kU16, kF16, kBF16, kI32, kU32, kF32, kI64, kU64, kF64 };

// "F32" and so on.
absl::string_view SafetensorsDTypeName(SafetensorsDType dtype);
int64_t SafetensorsDTypeBytes(SafetensorsDType dtype);

struct SafetensorsTensor {
  std::string name;
  SafetensorsDType dtype = SafetensorsDType::kF32;
  std::vector<int64_t> shape;  // empty for a scalar
  int64_t elements = 1;
  uint64_t begin = 0, end = 0;  // bytes within the data part; for a writer, filled in by it

  std::string ShapeText() const;  // "[2, 3]"
};

class SafetensorsFile {
 public:
  // The file system's errors for a file that cannot be mapped; INVALID_ARGUMENT for everything wrong inside,
  // with the path, the tensor, what was expected and what was found.
  static absl::StatusOr<SafetensorsFile> Open(FileSystem& file_system, const std::string& path);

  const std::string& path() const { return path_; }
  // In the order of their data.
  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Null when there is none.
  const SafetensorsTensor* Find(absl::string_view name) const;

  // The tensor's bytes; not aligned to its elements in files of other writers. Requires a tensor of this
  // file.
  const uint8_t* Data(const SafetensorsTensor& tensor) const;

  // Its elements as binary32: F32 as they are, BF16 and F16 exactly, F64 rounded. INVALID_ARGUMENT for other
  // dtypes.
  absl::Status ReadFloats(const SafetensorsTensor& tensor, float* out) const;
  // Elements [first, first + count) of it, as above.
  absl::Status ReadFloats(const SafetensorsTensor& tensor, int64_t first, int64_t count, float* out) const;

 private:
  SafetensorsFile() = default;

  std::string path_;
  std::shared_ptr<const MappedFile> file_;
  const uint8_t* data_ = nullptr;
  std::vector<SafetensorsTensor> tensors_;
  std::map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

class SafetensorsWriter {
 public:
  // Creates the file and writes its header. Tensors need name, dtype and shape; their data follow in this
  // order. INVALID_ARGUMENT for a repeated name or a negative dimension; the file system's errors.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      FileSystem& file_system, const std::string& path, std::vector<SafetensorsTensor> tensors,
      const std::map<std::string, std::string>& metadata);

  // The next bytes, of one tensor or several, whole or in pieces. FAILED_PRECONDITION beyond the last tensor.
  absl::Status Append(const void* data, size_t size_bytes);
  // Syncs and closes. FAILED_PRECONDITION when data are missing.
  absl::Status Finish();

  uint64_t size_bytes() const { return size_bytes_; }  // written so far, header included
  Hash128 hash() const { return hasher_.Finish(); }    // of them

 private:
  SafetensorsWriter() = default;
  absl::Status Write(const void* data, size_t size_bytes);

  std::string path_;
  std::unique_ptr<WritableFile> file_;
  uint64_t expected_bytes_ = 0;  // of header and data
  uint64_t size_bytes_ = 0;
  Hasher hasher_;
};

}  // namespace accrue
