// GPT-2's printable stand-ins for bytes: every byte is one character in vocab.json and merges.txt.
#pragma once

#include <cstdint>
#include <string>

#include "common/tokenizer/utf8.h"

namespace accrue {

// Printable Latin-1 characters stand for themselves, the others for U+0100 and on, in order of the byte.
// Source: bytes_to_unicode in GPT-2's encoder.py.
inline char32_t Gpt2CodePoint(uint8_t byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  if (printable(byte)) return byte;
  char32_t next = 256;
  for (int b = 0; b < byte; ++b) next += printable(b) ? 0 : 1;
  return next;
}

inline std::string Gpt2Symbol(uint8_t byte) {
  std::string symbol;
  AppendUtf8(Gpt2CodePoint(byte), &symbol);
  return symbol;
}

}  // namespace accrue
