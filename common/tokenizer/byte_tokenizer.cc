#include <nlohmann/json.hpp>

#include "common/check.h"
#include "common/tokenizer/gpt2_bytes.h"
#include "common/tokenizer/tokenizer.h"

namespace accrue {
namespace {

constexpr int32_t kEndOfDocument = 256;
constexpr char kEndOfDocumentName[] = "<|endoftext|>";

class ByteEncoder : public Encoder {
 public:
  absl::Status EncodePart(absl::string_view text, bool /*continues*/, std::vector<int32_t>* ids) override {
    for (const char c : text) ids->push_back(static_cast<uint8_t>(c));
    return absl::OkStatus();
  }
};

class ByteTokenizer : public Tokenizer {
 public:
  absl::string_view kind() const override { return "bytes"; }
  int64_t vocabulary_size() const override { return 257; }
  int32_t end_of_document() const override { return kEndOfDocument; }
  std::unique_ptr<Encoder> NewEncoder() const override { return std::make_unique<ByteEncoder>(); }

  std::string Decode(absl::Span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      ACCRUE_CHECK(id >= 0 && id < 257);
      if (id != kEndOfDocument) text.push_back(static_cast<char>(id));
    }
    return text;
  }

  // A byte-level BPE without merges: what Hugging Face's PreTrainedTokenizerFast loads.
  std::vector<File> Files() const override {
    using Json = nlohmann::ordered_json;
    Json vocabulary = Json::object();
    for (int byte = 0; byte < 256; ++byte) vocabulary[Gpt2Symbol(static_cast<uint8_t>(byte))] = byte;
    vocabulary[kEndOfDocumentName] = kEndOfDocument;
    const Json byte_level{
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
    const Json tokenizer{{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", Json::array({Json{{"id", kEndOfDocument},
                                                            {"content", kEndOfDocumentName},
                                                            {"single_word", false},
                                                            {"lstrip", false},
                                                            {"rstrip", false},
                                                            {"normalized", false},
                                                            {"special", true}}})},
                         {"normalizer", nullptr},
                         {"pre_tokenizer", byte_level},
                         {"post_processor", nullptr},
                         {"decoder", byte_level},
                         {"model", Json{{"type", "BPE"},
                                        {"dropout", nullptr},
                                        {"unk_token", nullptr},
                                        {"continuing_subword_prefix", nullptr},
                                        {"end_of_word_suffix", nullptr},
                                        {"fuse_unk", false},
                                        {"byte_fallback", false},
                                        {"vocab", std::move(vocabulary)},
                                        {"merges", Json::array()}}}};
    const Json config{{"tokenizer_class", "PreTrainedTokenizerFast"},
                      {"bos_token", kEndOfDocumentName},
                      {"eos_token", kEndOfDocumentName},
                      {"clean_up_tokenization_spaces", false}};
    return {{"tokenizer.json", tokenizer.dump(1) + "\n"}, {"tokenizer_config.json", config.dump(2) + "\n"}};
  }
};

}  // namespace

std::unique_ptr<Tokenizer> NewByteTokenizer() { return std::make_unique<ByteTokenizer>(); }

}  // namespace accrue
