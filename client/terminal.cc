#include "client/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace accrue {
namespace {

std::string Environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool Utf8Locale() {
  for (const char* const name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = absl::AsciiStrToLower(Environment(name));
    if (value.empty()) continue;
    return absl::StrContains(value, "utf-8") || absl::StrContains(value, "utf8");
  }
  return false;
}

const char* Escape(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "\x1b[1m";
    case Style::kDim:
      return "\x1b[2m";
    case Style::kGood:
      return "\x1b[32m";
    case Style::kBad:
      return "\x1b[31m";
    case Style::kWarm:
      return "\x1b[33m";
    case Style::kAccent:
      return "\x1b[36m";
  }
  return "";
}

winsize SizeOf(int descriptor) {
  winsize size{};
  if (descriptor < 0 || ioctl(descriptor, TIOCGWINSZ, &size) != 0) size = {};
  if (size.ws_col == 0) size.ws_col = 80;
  if (size.ws_row == 0) size.ws_row = 24;
  return size;
}

bool Continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

Terminal Terminal::Of(int descriptor) {
  Terminal terminal;
  terminal.descriptor = descriptor;
  const std::string term = Environment("TERM");
  terminal.interactive = isatty(descriptor) == 1 && !term.empty() && term != "dumb";
  terminal.color = terminal.interactive && Environment("NO_COLOR").empty();
  terminal.unicode = Utf8Locale();
  return terminal;
}

int Terminal::Width() const { return SizeOf(descriptor).ws_col; }
int Terminal::Height() const { return SizeOf(descriptor).ws_row; }

int Columns(absl::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return !Continues(c); }));
}

std::string Printable(absl::string_view text) {
  std::string printable(text);
  for (char& c : printable) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return printable;
}

Line& Line::Add(absl::string_view text, Style style) {
  pieces_.push_back({std::string(text), style});
  width_ += Columns(text);
  return *this;
}

Line& Line::PadTo(int column) { return Add(std::string(std::max(1, column - width_), ' ')); }

std::string Line::Finish(int columns, bool color) const {
  std::string line;
  int left = columns;
  for (const Piece& piece : pieces_) {
    size_t end = 0;
    while (end < piece.text.size() && (left > 0 || Continues(piece.text[end]))) {
      if (!Continues(piece.text[end])) --left;
      ++end;
    }
    const std::string text = piece.text.substr(0, end);
    const bool styled = color && piece.style != Style::kPlain && !text.empty();
    absl::StrAppend(&line, styled ? Escape(piece.style) : "", text, styled ? "\x1b[0m" : "");
  }
  return line;
}

Painter::~Painter() {
  if (cursor_hidden_) out_ << "\x1b[?25h" << std::flush;
}

std::string Painter::EraseSequence() const {
  if (painted_.empty()) return "";
  return absl::StrCat("\x1b[", painted_.size(), "A\r\x1b[J");
}

void Painter::Paint(const std::vector<std::string>& lines) {
  if (lines == painted_) return;
  std::string frame;
  if (!cursor_hidden_) frame = "\x1b[?25l";
  cursor_hidden_ = true;
  if (!painted_.empty()) absl::StrAppend(&frame, "\x1b[", painted_.size(), "A\r");
  // Line by line, clearing only to the right, so that nothing flickers.
  for (const std::string& line : lines) absl::StrAppend(&frame, line, "\x1b[K\n");
  absl::StrAppend(&frame, "\x1b[J");
  out_ << frame << std::flush;
  painted_ = lines;
}

void Painter::PrintAbove(absl::string_view line) {
  const std::vector<std::string> block = painted_;
  out_ << EraseSequence() << std::string(line) << "\n";
  painted_.clear();
  if (!block.empty()) Paint(block);
  out_ << std::flush;
}

}  // namespace accrue
