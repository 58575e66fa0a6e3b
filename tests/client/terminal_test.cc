// Lines cut to a width, the painter's escape sequences, and what counts as a terminal.
#include "client/terminal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <sstream>

#include "gtest/gtest.h"

namespace accrue {
namespace {

TEST(Line, Finish_CutAtCharacters) {
  Line line;
  line.Add("ab").Add("█▉", Style::kGood).Add("cd");
  EXPECT_EQ(line.width(), 6);
  EXPECT_EQ(line.Finish(80, false), "ab█▉cd");
  EXPECT_EQ(line.Finish(3, false), "ab█");
  EXPECT_EQ(line.Finish(3, true), "ab\x1b[32m█\x1b[0m");
  EXPECT_EQ(line.Finish(2, true), "ab");
}

TEST(Line, PadTo_AtLeastOneSpace) {
  EXPECT_EQ(Line().Add("ab").PadTo(4).Add("x").Finish(80, false), "ab  x");
  EXPECT_EQ(Line().Add("abcd").PadTo(4).Add("x").Finish(80, false), "abcd x");
}

TEST(Printable, ControlCharacters_Replaced) { EXPECT_EQ(Printable("a\x1b[2J\nb\x7f"), "a?[2J?b?"); }

TEST(Painter, Paint_RepaintsInPlaceAndGivesTheCursorBack) {
  std::ostringstream out;
  {
    Painter painter(out);
    painter.Paint({"one", "two"});
    EXPECT_EQ(out.str(), "\x1b[?25lone\x1b[K\ntwo\x1b[K\n\x1b[J");
    out.str("");
    painter.Paint({"one", "two"});
    EXPECT_EQ(out.str(), "");  // nothing has changed
    painter.Paint({"1"});
    EXPECT_EQ(out.str(), "\x1b[2A\r1\x1b[K\n\x1b[J");
    out.str("");
    painter.PrintAbove("news");
    EXPECT_EQ(out.str(), "\x1b[1A\r\x1b[Jnews\n1\x1b[K\n\x1b[J");
    out.str("");
  }
  EXPECT_EQ(out.str(), "\x1b[?25h");
}

// A pseudo-terminal of 100 columns.
class TerminalTest : public ::testing::Test {
 protected:
  TerminalTest() {
    controller_ = posix_openpt(O_RDWR | O_NOCTTY);
    grantpt(controller_);
    unlockpt(controller_);
    terminal_ = open(ptsname(controller_), O_RDWR | O_NOCTTY);
    const winsize size{.ws_row = 40, .ws_col = 100};
    ioctl(terminal_, TIOCSWINSZ, &size);
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
  }
  ~TerminalTest() override {
    close(terminal_);
    close(controller_);
    unsetenv("NO_COLOR");
  }
  int controller_, terminal_;
};

TEST_F(TerminalTest, PseudoTerminal_InteractiveWithItsSize) {
  const Terminal terminal = Terminal::Of(terminal_);
  EXPECT_TRUE(terminal.interactive);
  EXPECT_TRUE(terminal.color);
  EXPECT_EQ(terminal.Width(), 100);
  EXPECT_EQ(terminal.Height(), 40);
}

TEST_F(TerminalTest, NoColor_NoColour) {
  setenv("NO_COLOR", "1", 1);
  EXPECT_TRUE(Terminal::Of(terminal_).interactive);
  EXPECT_FALSE(Terminal::Of(terminal_).color);
}

TEST_F(TerminalTest, DumbOrNoTerminal_PlainLines) {
  setenv("TERM", "dumb", 1);
  EXPECT_FALSE(Terminal::Of(terminal_).interactive);
  const int null = open("/dev/null", O_WRONLY);
  EXPECT_FALSE(Terminal::Of(null).interactive);
  EXPECT_EQ(Terminal::Of(null).Width(), 80);
  close(null);
}

TEST_F(TerminalTest, Locale_DecidesUnicode) {
  setenv("LC_ALL", "C.UTF-8", 1);
  EXPECT_TRUE(Terminal::Of(terminal_).unicode);
  setenv("LC_ALL", "C", 1);
  EXPECT_FALSE(Terminal::Of(terminal_).unicode);
  unsetenv("LC_ALL");
}

}  // namespace
}  // namespace accrue
