// What a stream can show, and lines with colours that are cut to its width.
//
// Values; a Painter is not thread-safe.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace accrue {

struct Terminal {
  bool interactive = false;  // a person looks at it, and it can be repainted
  bool color = false;        // NO_COLOR is unset and TERM is not dumb
  bool unicode = true;       // the locale is UTF-8
  int descriptor = -1;

  // Of a file descriptor and the environment.
  static Terminal Of(int descriptor);
  // Columns and rows now; 80 x 24 when they cannot be told.
  int Width() const;
  int Height() const;
};

enum class Style { kPlain, kBold, kDim, kGood, kBad, kWarm, kAccent };

// One line, put together from styled pieces. Every character counts as one column.
class Line {
 public:
  Line& Add(absl::string_view text, Style style = Style::kPlain);
  // Spaces up to a column; at least one when it is passed already.
  Line& PadTo(int column);
  int width() const { return width_; }
  // At most `columns` wide; with escape sequences when color is set.
  std::string Finish(int columns, bool color) const;

 private:
  struct Piece {
    std::string text;
    Style style;
  };
  std::vector<Piece> pieces_;
  int width_ = 0;
};

// Code points of UTF-8 text.
int Columns(absl::string_view text);
// Control characters, which could move the cursor, become '?'.
std::string Printable(absl::string_view text);

// Repaints a block of lines in place. Restores the cursor when it is destroyed.
class Painter {
 public:
  explicit Painter(std::ostream& out) : out_(out) {}
  ~Painter();
  Painter(const Painter&) = delete;
  Painter& operator=(const Painter&) = delete;

  // Replaces what the last call painted.
  void Paint(const std::vector<std::string>& lines);
  // Prints a line above the block.
  void PrintAbove(absl::string_view line);

 private:
  std::string EraseSequence() const;

  std::ostream& out_;
  std::vector<std::string> painted_;
  bool cursor_hidden_ = false;
};

}  // namespace accrue
