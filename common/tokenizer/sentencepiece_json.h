// A SentencePiece model as Hugging Face's tokenizers library reads it (tokenizer.json).
#pragma once

#include <optional>
#include <string>

#include "common/tokenizer/sentencepiece_model.h"

namespace accrue {

// Nothing for what that library would do differently: a unigram model, a map of characters, spaces that are removed or
// belong to the word before. A merge's rank there is the score of the piece that it makes; of equal scores, the piece's
// id decides, then the ids of its halves, where SentencePiece takes the leftmost pair of the text.
std::optional<std::string> SentencePieceToJson(const SentencePieceModel& model);

}  // namespace accrue
