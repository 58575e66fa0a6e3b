// SentencePiece's model file (sentencepiece_model.proto), read and written without its library: that library
// carries a Protocol Buffers runtime of its own, which cannot share a process with the one that gRPC uses.
//
// A value; what a file may hold is checked, as files are hostile input.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace accrue {

// U+2581 stands for a space in pieces.
inline constexpr absl::string_view kSpaceSymbol = "\xE2\x96\x81";

struct SentencePieceModel {
  enum class Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  struct Piece {
    std::string text;
    float score = 0;  // finite
    Type type = Type::kNormal;
  };
  enum class Algorithm { kUnigram = 1, kBpe = 2 };

  std::vector<Piece> pieces;  // by id; exactly one is kUnknown
  Algorithm algorithm = Algorithm::kUnigram;
  bool byte_fallback = false;  // then every byte has a piece
  bool whitespace_as_suffix = false;
  std::string unknown_surface = " \xE2\x81\x87 ";
  std::string end_of_sentence = "</s>";
  // How text is normalised first:
  std::string normalizer = "identity";
  std::string character_map;  // compiled replacements, see sentencepiece_normalizer.h; empty: none
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;

  // INVALID_ARGUMENT for what is no model, contradicts itself, or uses another algorithm.
  static absl::StatusOr<SentencePieceModel> Parse(absl::string_view bytes, const std::string& place);
  std::string Serialize() const;
};

// The piece of a byte: "<0x0A>".
std::string BytePieceName(uint8_t byte);

}  // namespace accrue
