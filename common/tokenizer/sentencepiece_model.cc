#include "common/tokenizer/sentencepiece_model.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

namespace accrue {

// What of a model's specification decides how text may be cut. Defaults are the format's.
struct SentencePieceSpec {
  bool well_formed = false;
  uint64_t model_type = 1;  // 2: BPE
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  bool has_character_map = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581 stands for a space in pieces

// Fields of a Protocol Buffers message, one after the other. The library's header does not show its messages.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}

  struct Field {
    uint64_t number = 0;
    uint64_t value = 0;       // of a varint
    std::string_view bytes;   // of a length-delimited field
  };
  // False at the end, and where the message is ill-formed.
  bool Next(Field* field) {
    uint64_t tag = 0, length = 0;
    if (bytes_.empty() || !Varint(&tag)) return false;
    *field = Field{tag >> 3};
    switch (tag & 7) {
      case 0: return Varint(&field->value);
      case 1: return Take(8, &field->bytes);
      case 2: return Varint(&length) && Take(length, &field->bytes);
      case 5: return Take(4, &field->bytes);
      default: return Fail();
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
  bool Take(uint64_t length, std::string_view* out) {
    if (length > bytes_.size()) return Fail();
    *out = bytes_.substr(0, length);
    bytes_.remove_prefix(length);
    return true;
  }

  std::string_view bytes_;
  bool well_formed_ = true;
};

// Numbers of the fields are those of sentencepiece_model.proto.
SentencePieceSpec ReadSpec(std::string_view serialized) {
  SentencePieceSpec spec;
  WireReader model(serialized);
  WireReader::Field part, field;
  bool well_formed = true;
  while (model.Next(&part)) {
    if (part.number != 2 && part.number != 3) continue;
    WireReader reader(part.bytes);
    while (reader.Next(&field)) {
      if (part.number == 2 && field.number == 3) spec.model_type = field.value;
      if (part.number == 2 && field.number == 24) spec.whitespace_as_suffix = field.value != 0;
      if (part.number == 2 && field.number == 35) spec.byte_fallback = field.value != 0;
      if (part.number == 3 && field.number == 2) spec.has_character_map = !field.bytes.empty();
      if (part.number == 3 && field.number == 3) spec.add_dummy_prefix = field.value != 0;
      if (part.number == 3 && field.number == 4) spec.remove_extra_whitespaces = field.value != 0;
      if (part.number == 3 && field.number == 5) spec.escape_whitespaces = field.value != 0;
    }
    well_formed = well_formed && reader.well_formed();
  }
  spec.well_formed = well_formed && model.well_formed();
  return spec;
}

// A piece within which no cut can fall: spaces only at its beginning, no line feed.
bool StaysWithinAWord(std::string_view piece) {
  if (piece.find('\n') != std::string_view::npos || piece.find(' ') != std::string_view::npos) return false;
  while (piece.substr(0, kSpaceSymbol.size()) == kSpaceSymbol) piece.remove_prefix(kSpaceSymbol.size());
  return piece.find(kSpaceSymbol) == std::string_view::npos;
}

class LineIterator : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::function<bool(std::string*)>& next_line) : next_line_(next_line) { Next(); }
  bool done() const override { return done_; }
  void Next() override { done_ = done_ || !next_line_(&line_); }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::function<bool(std::string*)>& next_line_;
  std::string line_;
  bool done_ = false;
};

}  // namespace

struct SentencePieceModel::Library {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceModel::SentencePieceModel() : library_(std::make_unique<Library>()) {}
SentencePieceModel::~SentencePieceModel() = default;

std::unique_ptr<SentencePieceModel> SentencePieceModel::Load(const std::string& serialized, std::string* error) {
  const SentencePieceSpec spec = ReadSpec(serialized);
  if (!spec.well_formed || serialized.empty()) {
    *error = "expected a SentencePiece model, found other bytes";
    return nullptr;
  }
  std::unique_ptr<SentencePieceModel> model(new SentencePieceModel);
  const auto status = model->library_->processor.LoadFromSerializedProto(serialized);
  if (!status.ok()) {
    *error = status.ToString();
    return nullptr;
  }
  model->adds_dummy_prefix_ = spec.add_dummy_prefix;
  model->words_are_independent_ = model->ComputeWordsAreIndependent(spec);
  return model;
}

bool SentencePieceModel::ComputeWordsAreIndependent(const SentencePieceSpec& spec) const {
  if (spec.model_type != 2 || !spec.byte_fallback || spec.whitespace_as_suffix || spec.has_character_map ||
      spec.add_dummy_prefix || spec.remove_extra_whitespaces || !spec.escape_whitespaces) {
    return false;
  }
  const auto& processor = library_->processor;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    if (processor.IsControl(id) || processor.IsUnknown(id) || processor.IsByte(id)) continue;
    if (!StaysWithinAWord(processor.IdToPiece(id))) return false;
  }
  return true;
}

bool SentencePieceModel::Train(const std::function<bool(std::string* line)>& next_line, int64_t vocabulary,
                               std::string* serialized, std::string* error) {
  LineIterator lines(next_line);
  if (lines.done()) {
    *error = "there is no text to train on";
    return false;
  }
  // Nothing is normalised, so that code keeps its spaces; what is rare is spelled in bytes.
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocabulary)},
      {"hard_vocab_limit", "false"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", "true"},
      {"byte_fallback", "true"},
      {"max_sentence_length", "65536"},
      {"num_threads", "1"},
      {"minloglevel", "3"},
  };
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &lines, serialized);
  if (status.ok()) return true;
  *error = status.ToString();
  return false;
}

int SentencePieceModel::size() const { return library_->processor.GetPieceSize(); }
int SentencePieceModel::end_of_sentence() const { return library_->processor.eos_id(); }

bool SentencePieceModel::Encode(std::string_view text, std::vector<int32_t>* ids, std::string* error) const {
  std::vector<int> encoded;
  const auto status = library_->processor.Encode(text, &encoded);
  if (!status.ok()) {
    *error = status.ToString();
    return false;
  }
  ids->insert(ids->end(), encoded.begin(), encoded.end());
  return true;
}

std::string SentencePieceModel::Decode(const std::vector<int>& ids) const {
  std::string text;
  // Fails for ids out of range only, which the caller has promised not to give.
  if (!library_->processor.Decode(ids, &text).ok()) return "";
  return text;
}

}  // namespace accrue
