#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/tokenizer/gpt2_pretokenizer.h"

#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace accrue {
namespace {

// Source: GPT-2's encoder.py. White space is spelled out as Unicode's White_Space property, which is what
// Hugging Face's tokenizers match; PCRE2's own \s differs in U+180E.
#define ACCRUE_SPACES \
  R"(\t-\r\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})"
constexpr char kPattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^)" ACCRUE_SPACES R"(\p{L}\p{N}]+|[)" ACCRUE_SPACES
    R"(]+(?![^)" ACCRUE_SPACES R"(])|[)" ACCRUE_SPACES R"(]+)";
#undef ACCRUE_SPACES

}  // namespace

struct Gpt2Pretokenizer::Pattern {
  pcre2_code* code = nullptr;
};

Gpt2Pretokenizer::Gpt2Pretokenizer() : pattern_(std::make_unique<Pattern>()) {
  int error = 0;
  PCRE2_SIZE place = 0;
  pattern_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kPattern), PCRE2_ZERO_TERMINATED,
                                 PCRE2_UTF | PCRE2_UCP, &error, &place, nullptr);
  ACCRUE_CHECK(pattern_->code != nullptr);
  pcre2_jit_compile(pattern_->code, PCRE2_JIT_COMPLETE);  // only faster: without it the interpreter matches
}

Gpt2Pretokenizer::~Gpt2Pretokenizer() { pcre2_code_free(pattern_->code); }

struct Gpt2Pretokenizer::Splitter::State {
  const pcre2_code* code = nullptr;
  pcre2_match_data* match = nullptr;
};

Gpt2Pretokenizer::Splitter::Splitter(const Gpt2Pretokenizer& owner) : state_(std::make_unique<State>()) {
  state_->code = owner.pattern_->code;
  state_->match = pcre2_match_data_create_from_pattern(state_->code, nullptr);
  ACCRUE_CHECK(state_->match != nullptr);
}

Gpt2Pretokenizer::Splitter::~Splitter() { pcre2_match_data_free(state_->match); }

absl::Status Gpt2Pretokenizer::Splitter::Next(absl::string_view text, size_t from, size_t* length) {
  const int matched = pcre2_match(state_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                  PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, state_->match, nullptr);
  if (matched < 0) return absl::InternalError(absl::StrCat("PCRE2 cannot split text: error ", matched));
  *length = pcre2_get_ovector_pointer(state_->match)[1] - from;
  ACCRUE_CHECK(*length > 0);
  return absl::OkStatus();
}

}  // namespace accrue
