// Text to token ids and back. One interface over three kinds:
//
//   bytes          ids 0..255 are bytes, 256 ends a document
//   sentencepiece  a SentencePiece model (tokenizer.model)
//   gpt2           GPT-2's byte-level BPE (vocab.json, merges.txt)
//
// A tokenizer lives in a folder, in files that Hugging Face's tokenizers load too, so that export copies them
// as they are. Tokenizer is immutable and thread-safe; an Encoder keeps caches and belongs to one thread.
// Text of a special token, such as "<|endoftext|>", is encoded as ordinary text: what is in a document never
// ends it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/file_system.h"

namespace accrue {

// Not thread-safe. Must not outlive its tokenizer.
class Encoder {
 public:
  virtual ~Encoder() = default;
  // Appends the ids of text. Bytes that are not UTF-8 become U+FFFD, except for the kind bytes. The same ids
  // whatever was encoded before. INTERNAL when a library fails.
  absl::Status Encode(absl::string_view text, std::vector<int32_t>* ids) {
    return EncodePart(text, false, ids);
  }
  // The same for a text that comes in parts: `continues` is set for every part but the first. Parts that are
  // cut before a line feed that follows a printable ASCII character have the ids of the whole.
  virtual absl::Status EncodePart(absl::string_view text, bool continues, std::vector<int32_t>* ids) = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual absl::string_view kind() const = 0;
  virtual int64_t vocabulary_size() const = 0;
  // Follows every document; -1 when the vocabulary has no such token.
  virtual int32_t end_of_document() const = 0;
  virtual std::unique_ptr<Encoder> NewEncoder() const = 0;
  // Requires ids in [0, vocabulary_size()). A special token decodes to nothing, except for GPT-2's, to its
  // name.
  virtual std::string Decode(absl::Span<const int32_t> ids) const = 0;

  struct File {
    std::string name;
    std::string contents;
  };
  // Everything that Load needs and Hugging Face takes.
  virtual std::vector<File> Files() const = 0;

  // Convenience for short texts.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const;

  // From a folder that holds Files(), or a Hugging Face folder of a Llama or GPT-2 tokenizer. NOT_FOUND when
  // there is none; INVALID_ARGUMENT when it is damaged.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(FileSystem& file_system,
                                                         const std::string& directory);
};

std::unique_ptr<Tokenizer> NewByteTokenizer();

// From the bytes of a .model file; `place` is for messages.
absl::StatusOr<std::unique_ptr<Tokenizer>> NewSentencePieceTokenizer(std::string model,
                                                                     const std::string& place);

// From the texts of vocab.json and merges.txt. INVALID_ARGUMENT when ids are not 0..n-1, a byte has no id, or
// a merge makes what has no id.
absl::StatusOr<std::unique_ptr<Tokenizer>> NewGpt2Tokenizer(std::string vocabulary_json, std::string merges,
                                                            const std::string& place);

// Trains a BPE model with byte fallback on lines of text, on one thread, so that equal lines make equal
// models. next_line returns false at the end. The model may have fewer than `vocabulary` pieces when the text
// has no more; INVALID_ARGUMENT when it cannot be trained.
absl::StatusOr<std::string> TrainSentencePiece(const std::function<bool(std::string* line)>& next_line,
                                               int64_t vocabulary);

}  // namespace accrue
