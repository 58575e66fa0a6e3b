#include "bench/sentencepiece_library.h"

#include <sentencepiece_processor.h>

#include <vector>

namespace accrue::bench {

struct SentencePieceLibrary::Processor {
  sentencepiece::SentencePieceProcessor library;
};

SentencePieceLibrary::SentencePieceLibrary() : processor_(std::make_unique<Processor>()) {}
SentencePieceLibrary::~SentencePieceLibrary() = default;

std::unique_ptr<SentencePieceLibrary> SentencePieceLibrary::Load(const std::string& serialized) {
  std::unique_ptr<SentencePieceLibrary> loaded(new SentencePieceLibrary);
  if (!loaded->processor_->library.LoadFromSerializedProto(serialized).ok()) return nullptr;
  return loaded;
}

int64_t SentencePieceLibrary::Encode(std::string_view text) const {
  std::vector<int> ids;
  processor_->library.Encode(text, &ids);
  return static_cast<int64_t>(ids.size());
}

}  // namespace accrue::bench
