#include "worker/checkpoint/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue {
namespace {

// Far beyond any model, far below what would exhaust memory.
constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxDimensions = 16;
constexpr size_t kMaxMetadataEntries = 10'000;

constexpr SafetensorsDType kDTypes[] = {
    SafetensorsDType::kBool, SafetensorsDType::kU8,  SafetensorsDType::kI8,   SafetensorsDType::kI16,
    SafetensorsDType::kU16,  SafetensorsDType::kF16, SafetensorsDType::kBF16, SafetensorsDType::kI32,
    SafetensorsDType::kU32,  SafetensorsDType::kF32, SafetensorsDType::kI64,  SafetensorsDType::kU64,
    SafetensorsDType::kF64};

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, 100)), text.size() > 100 ? "...\"" : "\"");
}

// Follows the parser's events: {NAME: {"dtype": "...", "shape": [...], "data_offsets": [a, b]},
// "__metadata__": {...}}.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  SafetensorsHeader header;
  absl::Status status;

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a truth value"); }
  bool number_integer(int64_t) override { return Unexpected("a negative number"); }
  bool number_float(double, const std::string&) override { return Unexpected("a fraction"); }
  bool binary(nlohmann::json::binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(uint64_t value) override {
    if (place_ == Place::kShape) {
      if (value > INT64_MAX) return Fail(absl::StrCat(Of(), "a dimension of ", value, " is impossible"));
      if (tensor_.shape.size() == kMaxDimensions) {
        return Fail(absl::StrCat(Of(), "more than ", kMaxDimensions, " dimensions"));
      }
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (offsets_.size() == 2)
        return Fail(absl::StrCat(Of(), "\"data_offsets\" needs two numbers, found more"));
      offsets_.push_back(value);
      return true;
    }
    return Unexpected("a number");
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadata && !key_.empty()) {
      header.metadata[key_] = value;
      return true;
    }
    if (place_ == Place::kTensor && key_ == "dtype") {
      for (SafetensorsDType dtype : kDTypes) {
        if (value == SafetensorsDTypeName(dtype)) {
          tensor_.dtype = dtype;
          return true;
        }
      }
      return Fail(absl::StrCat(Of(), "unknown dtype ", Quoted(value)));
    }
    return Unexpected("a string");
  }

  bool start_object(size_t) override {
    if (place_ == Place::kBegin) {
      place_ = Place::kTop;
      return true;
    }
    if (place_ != Place::kTop) return Unexpected("an object");
    place_ = name_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
    key_.clear();
    seen_.clear();
    offsets_.clear();
    tensor_ = SafetensorsTensor{.name = name_};
    return true;
  }

  bool key(std::string& value) override {
    if (value.size() > kMaxNameBytes)
      return Fail(absl::StrCat("a name longer than ", kMaxNameBytes, " bytes: ", Quoted(value)));
    if (place_ == Place::kTop) {
      if (!names_.insert(value).second)
        return Fail(absl::StrCat(Quoted(value), " appears twice in the header"));
      if (names_.size() > kMaxTensors) return Fail(absl::StrCat("more than ", kMaxTensors, " tensors"));
      name_ = value;
      return true;
    }
    key_ = value;
    if (!seen_.insert(value).second) return Fail(absl::StrCat(Of(), Quoted(value), " appears twice"));
    if (place_ == Place::kMetadata) {
      if (value.empty()) return Fail(absl::StrCat(Of(), "an empty key"));
      return seen_.size() <= kMaxMetadataEntries ||
             Fail(absl::StrCat(Of(), "more than ", kMaxMetadataEntries, " entries"));
    }
    return value == "dtype" || value == "shape" || value == "data_offsets" ||
           Fail(
               absl::StrCat(Of(), "unknown key ", Quoted(value), "; expected dtype, shape and data_offsets"));
  }

  bool end_object() override {
    if (place_ == Place::kTop) {
      place_ = Place::kEnd;
      return true;
    }
    if (place_ == Place::kTensor && !FinishTensor()) return false;
    place_ = Place::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ == Place::kTensor && key_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && key_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      return Unexpected("a list");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_.size() != 2) {
      return Fail(absl::StrCat(Of(), "\"data_offsets\" needs two numbers, found ", offsets_.size()));
    }
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("the header is not JSON: unexpected text at byte ", position, " of it"));
  }

 private:
  enum class Place { kBegin, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  std::string Of() const {
    return place_ == Place::kMetadata ? std::string("__metadata__: ")
                                      : absl::StrCat("tensor ", Quoted(name_), ": ");
  }

  bool Fail(std::string message) {
    if (status.ok()) status = absl::InvalidArgumentError(message);
    return false;
  }

  bool Unexpected(absl::string_view found) {
    switch (place_) {
      case Place::kBegin:
      case Place::kEnd:
        return Fail(absl::StrCat("the header is not a JSON object: found ", found));
      case Place::kTop:
        return Fail(absl::StrCat(Quoted(name_), ": expected an object, found ", found));
      case Place::kMetadata:
        return Fail(absl::StrCat(Of(), Quoted(key_), ": expected a string, found ", found));
      case Place::kTensor:
        return Fail(absl::StrCat(Of(), Quoted(key_), ": expected ", key_ == "dtype" ? "a string" : "a list",
                                 ", found ", found));
      case Place::kShape:
      case Place::kOffsets:
        return Fail(
            absl::StrCat(Of(), Quoted(key_), ": expected whole numbers of at least 0, found ", found));
    }
    return false;
  }

  bool FinishTensor() {
    for (const char* needed : {"dtype", "shape", "data_offsets"}) {
      if (!seen_.contains(needed)) return Fail(absl::StrCat(Of(), "no \"", needed, "\""));
    }
    uint64_t bytes = static_cast<uint64_t>(SafetensorsDTypeBytes(tensor_.dtype));
    for (int64_t size : tensor_.shape) {
      if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes) || bytes > INT64_MAX) {
        return Fail(absl::StrCat(Of(), "shape ", tensor_.ShapeText(), " is larger than any file"));
      }
      tensor_.elements *= size;  // no overflow: bytes holds it
    }
    tensor_.begin = offsets_[0];
    tensor_.end = offsets_[1];
    if (tensor_.begin > tensor_.end || tensor_.end - tensor_.begin != bytes) {
      return Fail(absl::StrCat(Of(), "shape ", tensor_.ShapeText(), " of ",
                               absl::string_view(SafetensorsDTypeName(tensor_.dtype)), " needs ", bytes,
                               " bytes, data_offsets are [", tensor_.begin, ", ", tensor_.end, "]"));
    }
    header.tensors.push_back(std::move(tensor_));
    return true;
  }

  Place place_ = Place::kBegin;
  absl::flat_hash_set<std::string> names_;  // at the top
  std::string name_;
  absl::flat_hash_set<std::string> seen_;  // keys of the object at hand
  std::string key_;
  SafetensorsTensor tensor_;
  std::vector<uint64_t> offsets_;
};

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json, uint64_t data_bytes) {
  HeaderHandler handler;
  const bool parsed = nlohmann::json::sax_parse(json.begin(), json.end(), &handler);
  ACCRUE_RETURN_IF_ERROR(handler.status);
  if (!parsed) return absl::InvalidArgumentError("the header is not JSON");

  std::vector<SafetensorsTensor>& tensors = handler.header.tensors;
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
                     return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
                   });
  uint64_t covered = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    const std::string place =
        absl::StrCat("tensor ", Quoted(tensor.name), ": data_offsets [", tensor.begin, ", ", tensor.end, "]");
    if (tensor.end > data_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, " lie beyond the file's ", data_bytes, " bytes of data"));
    }
    if (tensor.begin < covered)
      return absl::InvalidArgumentError(absl::StrCat(place, " overlap the tensor before"));
    if (tensor.begin > covered) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, " leave a gap after byte ", covered, " of the data"));
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tensors cover ", covered, " of the file's ", data_bytes, " bytes of data"));
  }
  return std::move(handler.header);
}

}  // namespace accrue
