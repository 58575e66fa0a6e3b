#include "common/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status.h"

namespace accrue {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 24;

// Wire types of Protocol Buffers.
constexpr uint64_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

// Fields of a Protocol Buffers message, one after the other.
class WireReader {
 public:
  explicit WireReader(absl::string_view bytes) : bytes_(bytes) {}

  struct Field {
    uint64_t number = 0;
    uint64_t value = 0;       // of a varint
    absl::string_view bytes;  // of any other
  };
  // False at the end, and where the message is ill-formed.
  bool Next(Field* field) {
    uint64_t tag = 0, length = 0;
    if (bytes_.empty() || !Varint(&tag)) return false;
    *field = Field{tag >> 3, 0, {}};
    switch (tag & 7) {
      case kVarint:
        return Varint(&field->value);
      case kFixed64:
        return Take(8, &field->bytes);
      case kBytes:
        return Varint(&length) && Take(length, &field->bytes);
      case kFixed32:
        return Take(4, &field->bytes);
      default:
        return Fail();
    }
  }
  bool well_formed() const { return well_formed_; }

 private:
  bool Fail() {
    well_formed_ = false;
    return false;
  }
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (bytes_.empty()) return Fail();
      const uint8_t byte = static_cast<uint8_t>(bytes_.front());
      bytes_.remove_prefix(1);
      *value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return true;
    }
    return Fail();
  }
  bool Take(uint64_t length, absl::string_view* out) {
    if (length > bytes_.size()) return Fail();
    *out = bytes_.substr(0, length);
    bytes_.remove_prefix(length);
    return true;
  }

  absl::string_view bytes_;
  bool well_formed_ = true;
};

class WireWriter {
 public:
  void Varint(uint64_t number, uint64_t value) {
    Raw(number << 3 | kVarint);
    Raw(value);
  }
  void Bytes(uint64_t number, absl::string_view value) {
    Raw(number << 3 | kBytes);
    Raw(value.size());
    absl::StrAppend(&bytes_, value);
  }
  void Float(uint64_t number, float value) {
    Raw(number << 3 | kFixed32);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void Raw(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  std::string bytes_;
};

// Numbers of the fields are those of sentencepiece_model.proto; what is not listed does not change encoding.
bool ReadPiece(absl::string_view bytes, SentencePieceModel::Piece* piece) {
  WireReader reader(bytes);
  WireReader::Field field;
  while (reader.Next(&field)) {
    if (field.number == 1) piece->text = std::string(field.bytes);
    if (field.number == 2) {
      if (field.bytes.size() != sizeof(float)) return false;
      std::memcpy(&piece->score, field.bytes.data(), sizeof(float));
    }
    if (field.number == 3) {
      if (field.value < 1 || field.value > 6) return false;
      piece->type = static_cast<SentencePieceModel::Type>(field.value);
    }
  }
  return reader.well_formed() && std::isfinite(piece->score);
}

bool ReadTrainerSpec(absl::string_view bytes, SentencePieceModel* model, uint64_t* algorithm) {
  WireReader reader(bytes);
  WireReader::Field field;
  while (reader.Next(&field)) {
    if (field.number == 3) *algorithm = field.value;
    if (field.number == 24) model->whitespace_as_suffix = field.value != 0;
    if (field.number == 35) model->byte_fallback = field.value != 0;
    if (field.number == 44) model->unknown_surface = std::string(field.bytes);
    if (field.number == 47) model->end_of_sentence = std::string(field.bytes);
  }
  return reader.well_formed();
}

bool ReadNormalizerSpec(absl::string_view bytes, SentencePieceModel* model) {
  WireReader reader(bytes);
  WireReader::Field field;
  while (reader.Next(&field)) {
    if (field.number == 1) model->normalizer = std::string(field.bytes);
    if (field.number == 2) model->character_map = std::string(field.bytes);
    if (field.number == 3) model->add_dummy_prefix = field.value != 0;
    if (field.number == 4) model->remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) model->escape_whitespaces = field.value != 0;
  }
  return reader.well_formed();
}

// What the encoder relies on.
std::string Contradiction(const SentencePieceModel& model) {
  absl::flat_hash_set<std::string> byte_names;
  for (int byte = 0; byte < 256; ++byte) byte_names.insert(BytePieceName(static_cast<uint8_t>(byte)));
  absl::flat_hash_set<absl::string_view> texts;
  size_t unknown = 0, bytes = 0;
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (piece.text.empty()) return "a piece is empty";
    if (!texts.insert(piece.text).second)
      return absl::StrCat("the piece \"", piece.text, "\" is there twice");
    unknown += piece.type == SentencePieceModel::Type::kUnknown ? 1 : 0;
    if (piece.type != SentencePieceModel::Type::kByte) continue;
    if (!byte_names.contains(piece.text))
      return absl::StrCat("the piece \"", piece.text, "\" stands for no byte");
    ++bytes;
  }
  if (unknown != 1) return absl::StrCat("expected one piece for the unknown, found ", unknown);
  // Names differ, so that 256 of them are all.
  if (model.byte_fallback && bytes != 256)
    return absl::StrCat("expected a piece for each of 256 bytes, found ", bytes);
  return "";
}

}  // namespace

std::string BytePieceName(uint8_t byte) { return absl::StrFormat("<0x%02X>", byte); }

absl::StatusOr<SentencePieceModel> SentencePieceModel::Parse(absl::string_view bytes,
                                                             const std::string& place) {
  SentencePieceModel model;
  WireReader reader(bytes);
  WireReader::Field field;
  uint64_t algorithm = 1;
  bool well_formed = true;
  while (well_formed && reader.Next(&field)) {
    if (field.number == 1) {
      well_formed = model.pieces.size() < kMaxPieces && ReadPiece(field.bytes, &model.pieces.emplace_back());
    }
    if (field.number == 2) well_formed = ReadTrainerSpec(field.bytes, &model, &algorithm);
    if (field.number == 3) well_formed = ReadNormalizerSpec(field.bytes, &model);
  }
  if (!well_formed || !reader.well_formed() || model.pieces.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": expected a SentencePiece model, found other bytes"));
  }
  if (algorithm != 1 && algorithm != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": expected a unigram (1) or BPE (2) model, found model type ", algorithm));
  }
  model.algorithm = static_cast<Algorithm>(algorithm);
  if (const std::string contradiction = Contradiction(model); !contradiction.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": ", contradiction));
  }
  return model;
}

std::string SentencePieceModel::Serialize() const {
  WireWriter model;
  for (const Piece& piece : pieces) {
    WireWriter writer;
    writer.Bytes(1, piece.text);
    writer.Float(2, piece.score);
    if (piece.type != Type::kNormal) writer.Varint(3, static_cast<uint64_t>(piece.type));
    model.Bytes(1, writer.bytes());
  }
  WireWriter trainer;
  trainer.Varint(3, static_cast<uint64_t>(algorithm));
  trainer.Varint(4, pieces.size());
  trainer.Varint(24, whitespace_as_suffix ? 1 : 0);
  trainer.Varint(35, byte_fallback ? 1 : 0);
  trainer.Bytes(44, unknown_surface);
  trainer.Bytes(47, end_of_sentence);
  model.Bytes(2, trainer.bytes());
  WireWriter normalizer_spec;
  normalizer_spec.Bytes(1, normalizer);
  normalizer_spec.Bytes(2, character_map);
  normalizer_spec.Varint(3, add_dummy_prefix ? 1 : 0);
  normalizer_spec.Varint(4, remove_extra_whitespaces ? 1 : 0);
  normalizer_spec.Varint(5, escape_whitespaces ? 1 : 0);
  model.Bytes(3, normalizer_spec.bytes());
  return model.bytes();
}

}  // namespace accrue
