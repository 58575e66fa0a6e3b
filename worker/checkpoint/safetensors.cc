#include "worker/checkpoint/safetensors.h"

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/binary16.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/checkpoint/safetensors_header.h"

namespace accrue {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");

constexpr uint64_t kLengthBytes = 8;
// The limit of the reference implementation.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

// out[i] = convert(the i-th T at `bytes`), which need not be aligned.
template <typename T, typename Convert>
void ConvertAll(const uint8_t* bytes, int64_t count, float* out, const Convert& convert) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    out[i] = convert(value);
  }
}

}  // namespace

absl::string_view SafetensorsDTypeName(SafetensorsDType dtype) {
  switch (dtype) {
    case SafetensorsDType::kBool:
      return "BOOL";
    case SafetensorsDType::kU8:
      return "U8";
    case SafetensorsDType::kI8:
      return "I8";
    case SafetensorsDType::kI16:
      return "I16";
    case SafetensorsDType::kU16:
      return "U16";
    case SafetensorsDType::kF16:
      return "F16";
    case SafetensorsDType::kBF16:
      return "BF16";
    case SafetensorsDType::kI32:
      return "I32";
    case SafetensorsDType::kU32:
      return "U32";
    case SafetensorsDType::kF32:
      return "F32";
    case SafetensorsDType::kI64:
      return "I64";
    case SafetensorsDType::kU64:
      return "U64";
    case SafetensorsDType::kF64:
      return "F64";
  }
  ACCRUE_CHECK(false);
}

int64_t SafetensorsDTypeBytes(SafetensorsDType dtype) {
  switch (dtype) {
    case SafetensorsDType::kBool:
    case SafetensorsDType::kU8:
    case SafetensorsDType::kI8:
      return 1;
    case SafetensorsDType::kI16:
    case SafetensorsDType::kU16:
    case SafetensorsDType::kF16:
    case SafetensorsDType::kBF16:
      return 2;
    case SafetensorsDType::kI32:
    case SafetensorsDType::kU32:
    case SafetensorsDType::kF32:
      return 4;
    case SafetensorsDType::kI64:
    case SafetensorsDType::kU64:
    case SafetensorsDType::kF64:
      return 8;
  }
  ACCRUE_CHECK(false);
}

std::string SafetensorsTensor::ShapeText() const {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(FileSystem& file_system, const std::string& path) {
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, file_system.Map(path));
  SafetensorsFile file;
  file.path_ = path;
  file.file_ = std::move(mapped);
  const uint64_t size_bytes = file.file_->size_bytes();
  if (size_bytes < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected a safetensors file, found ", size_bytes,
                                                   " bytes, too few for a header length"));
  }
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file.file_->data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > size_bytes - kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a safetensors file, or a truncated one: it claims a header of ",
                     header_bytes, " bytes in a file of ", size_bytes, " (limit ", kMaxHeaderBytes, ")"));
  }
  const absl::string_view json(reinterpret_cast<const char*>(file.file_->data()) + kLengthBytes,
                               header_bytes);
  absl::StatusOr<SafetensorsHeader> header =
      ParseSafetensorsHeader(json, size_bytes - kLengthBytes - header_bytes);
  if (!header.ok()) return Annotate(header.status(), path);
  file.data_ = file.file_->data() + kLengthBytes + header_bytes;
  file.tensors_ = std::move(header->tensors);
  file.metadata_ = std::move(header->metadata);
  for (size_t i = 0; i < file.tensors_.size(); ++i) file.index_[file.tensors_[i].name] = i;
  return file;
}

const SafetensorsTensor* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = index_.find(std::string(name));
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const uint8_t* SafetensorsFile::Data(const SafetensorsTensor& tensor) const { return data_ + tensor.begin; }

absl::Status SafetensorsFile::ReadFloats(const SafetensorsTensor& tensor, float* out) const {
  return ReadFloats(tensor, 0, tensor.elements, out);
}

absl::Status SafetensorsFile::ReadFloats(const SafetensorsTensor& tensor, int64_t first, int64_t count,
                                         float* out) const {
  ACCRUE_CHECK(first >= 0 && count >= 0 && first <= tensor.elements && count <= tensor.elements - first);
  const uint8_t* bytes = Data(tensor) + first * SafetensorsDTypeBytes(tensor.dtype);
  switch (tensor.dtype) {
    case SafetensorsDType::kF32:
      if (count > 0) std::memcpy(out, bytes, static_cast<size_t>(count) * sizeof(float));
      return absl::OkStatus();
    case SafetensorsDType::kBF16:
      ConvertAll<uint16_t>(bytes, count, out,
                           [](uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); });
      return absl::OkStatus();
    case SafetensorsDType::kF16:
      ConvertAll<uint16_t>(bytes, count, out, Binary16ToFloat);
      return absl::OkStatus();
    case SafetensorsDType::kF64:
      ConvertAll<double>(bytes, count, out, [](double x) { return static_cast<float>(x); });
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor \"", tensor.name,
                                                     "\": expected F32, BF16, F16 or F64, found ",
                                                     SafetensorsDTypeName(tensor.dtype)));
  }
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    FileSystem& file_system, const std::string& path, std::vector<SafetensorsTensor> tensors,
    const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  absl::flat_hash_set<std::string> names = {"__metadata__"};
  uint64_t data_bytes = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": the name \"", tensor.name, "\" is taken"));
    }
    uint64_t bytes = static_cast<uint64_t>(SafetensorsDTypeBytes(tensor.dtype));
    for (int64_t size : tensor.shape) {
      if (size < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": tensor \"", tensor.name, "\": shape ",
                                                       tensor.ShapeText(), " is impossible"));
      }
    }
    const absl::string_view dtype = SafetensorsDTypeName(tensor.dtype);
    header[tensor.name] = {{"dtype", std::string(dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {data_bytes, data_bytes + bytes}}};
    data_bytes += bytes;
  }
  // What is not UTF-8 is replaced instead of thrown about. Spaces align the data to 8 bytes.
  std::string json = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  json.append((kLengthBytes - json.size() % kLengthBytes) % kLengthBytes, ' ');

  auto writer = std::unique_ptr<SafetensorsWriter>(new SafetensorsWriter);
  writer->path_ = path;
  writer->expected_bytes_ = kLengthBytes + json.size() + data_bytes;
  ACCRUE_ASSIGN_OR_RETURN(writer->file_, file_system.Create(path));
  const uint64_t header_bytes = json.size();
  ACCRUE_RETURN_IF_ERROR(writer->Write(&header_bytes, sizeof(header_bytes)));
  ACCRUE_RETURN_IF_ERROR(writer->Write(json.data(), json.size()));
  return writer;
}

absl::Status SafetensorsWriter::Write(const void* data, size_t size_bytes) {
  ACCRUE_RETURN_IF_ERROR(file_->Append(data, size_bytes));
  hasher_.Update(data, size_bytes);
  size_bytes_ += size_bytes;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Append(const void* data, size_t size_bytes) {
  if (size_bytes > expected_bytes_ - size_bytes_) {
    return absl::FailedPreconditionError(absl::StrCat(path_, ": ", size_bytes, " bytes of data after ",
                                                      size_bytes_, "; the header announces ", expected_bytes_,
                                                      " in all"));
  }
  return Write(data, size_bytes);
}

absl::Status SafetensorsWriter::Finish() {
  if (size_bytes_ != expected_bytes_) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": ", size_bytes_, " bytes written, the header announces ", expected_bytes_));
  }
  ACCRUE_RETURN_IF_ERROR(file_->Sync());
  return file_->Close();
}

}  // namespace accrue
