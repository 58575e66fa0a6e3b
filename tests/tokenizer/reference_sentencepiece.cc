#include "tests/tokenizer/reference_sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

namespace accrue::reference {
namespace {

class Lines : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(const std::vector<std::string>& lines) : lines_(lines) {}
  bool done() const override { return next_ == lines_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return lines_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& lines_;
  size_t next_ = 0;
};

}  // namespace

struct SentencePiece::Library {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePiece::SentencePiece() : library_(std::make_unique<Library>()) {}
SentencePiece::~SentencePiece() = default;

std::unique_ptr<SentencePiece> SentencePiece::Load(const std::string& serialized) {
  std::unique_ptr<SentencePiece> loaded(new SentencePiece);
  if (!loaded->library_->processor.LoadFromSerializedProto(serialized).ok()) return nullptr;
  return loaded;
}

std::string SentencePiece::Train(const std::vector<std::string>& lines,
                                 const std::unordered_map<std::string, std::string>& options) {
  auto all = options;
  all.emplace("minloglevel", "3");
  all.emplace("num_threads", "1");
  Lines iterator(lines);
  std::string serialized;
  if (!sentencepiece::SentencePieceTrainer::Train(all, &iterator, &serialized).ok()) return "";
  return serialized;
}

std::vector<int> SentencePiece::Encode(const std::string& text) const {
  std::vector<int> ids;
  library_->processor.Encode(text, &ids);
  return ids;
}

std::string SentencePiece::Decode(const std::vector<int>& ids) const {
  std::string text;
  library_->processor.Decode(ids, &text);
  return text;
}

int SentencePiece::size() const { return library_->processor.GetPieceSize(); }

}  // namespace accrue::reference
