#include "common/spec/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace accrue::spec {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxDepth = 32;
constexpr int kMaxNodes = 65536;

SourceMark MarkOf(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1}; }

// Builds the tree. After the first problem it ignores what follows.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(Problems& problems) : problems_(problems) {}

  bool failed() const { return failed_; }
  YamlNode TakeRoot() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    YamlNode node;
    if (Begin(mark, anchor, "", node)) Finish(std::move(node));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(MarkOf(mark), "YAML aliases (*name) are not accepted in a job file: write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node;
    if (!Begin(mark, anchor, tag, node)) return;
    node.kind = YamlNode::Kind::kScalar;
    node.quoted = tag == "!";
    node.text = value;
    Finish(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(YamlNode::Kind::kSequence, mark, tag, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(YamlNode::Kind::kMapping, mark, tag, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapEnd() override { Close(); }

 private:
  void Fail(SourceMark mark, std::string message) {
    if (!failed_) problems_.AddAt(mark, std::move(message));
    failed_ = true;
  }

  bool Begin(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& tag, YamlNode& node) {
    if (failed_) return false;
    node.mark = MarkOf(mark);
    if (anchor != YAML::NullAnchor) {
      Fail(node.mark, "YAML anchors (&name) are not accepted in a job file: write the value out");
    } else if (!tag.empty() && tag != "?" && tag != "!") {
      Fail(node.mark, absl::StrCat("YAML tags are not accepted in a job file, found \"",
                                   absl::Utf8SafeCEscape(tag), "\""));
    } else if (++nodes_ > kMaxNodes) {
      Fail(node.mark, absl::StrCat("more than ", kMaxNodes, " values: no job file needs as many"));
    }
    return !failed_;
  }

  void Open(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    YamlNode node;
    if (!Begin(mark, anchor, tag, node)) return;
    node.kind = kind;
    if (stack_.size() >= kMaxDepth) {
      Fail(node.mark, absl::StrCat("nested deeper than ", kMaxDepth, " levels"));
      return;
    }
    stack_.push_back(std::move(node));
  }

  void Close() {
    if (failed_) return;
    YamlNode node = std::move(stack_.back());
    stack_.pop_back();
    Finish(std::move(node));
  }

  void Finish(YamlNode node) {
    if (stack_.empty()) {
      root_ = std::move(node);
    } else {
      stack_.back().children.push_back(std::move(node));
    }
  }

  Problems& problems_;
  bool failed_ = false;
  int nodes_ = 0;
  YamlNode root_;
  std::vector<YamlNode> stack_;
};

// The length of the UTF-8 character at the front of `text`; 0 when there is none.
size_t Utf8Length(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  size_t length = 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) length = 2;
  if (lead >= 0xE0 && lead <= 0xEF) length = 3;
  if (lead >= 0xF0 && lead <= 0xF4) length = 4;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) || (lead == 0xF0 && second < 0x90) ||
      (lead == 0xF4 && second > 0x8F)) {
    return 0;
  }
  return length;
}

// Only UTF-8 text without control characters reaches the YAML library.
bool CheckText(absl::string_view text, Problems& problems) {
  if (text.size() > kMaxBytes) {
    problems.AddAt({},
                   absl::StrCat("the file has ", text.size(), " bytes; a job file has at most ", kMaxBytes));
    return false;
  }
  SourceMark mark;
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8Length(text.substr(i));
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (length == 0) {
      problems.AddAt(mark, "expected UTF-8 text, found a byte that is none");
      return false;
    }
    if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7F) {
      problems.AddAt(
          mark, absl::StrCat("expected text, found the control character 0x", absl::Hex(c, absl::kZeroPad2)));
      return false;
    }
    mark = c == '\n' ? SourceMark{mark.line + 1, 1} : SourceMark{mark.line, mark.column + 1};
    i += length;
  }
  return true;
}

// The first tab, up to this line, in the space before a line's text: what the library says of it is hard to understand.
std::optional<SourceMark> TabThatIndents(absl::string_view text, int last_line) {
  int line = 1;
  for (const absl::string_view content : absl::StrSplit(text, '\n')) {
    if (line > last_line) break;
    const size_t first = content.find_first_not_of(' ');
    if (first != absl::string_view::npos && content[first] == '\t') {
      return SourceMark{line, static_cast<int>(first) + 1};
    }
    ++line;
  }
  return std::nullopt;
}

}  // namespace

bool ReadYaml(absl::string_view text, YamlNode& root, Problems& problems) {
  if (!CheckText(text, problems)) return false;
  TreeBuilder builder(problems);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) {
      problems.AddAt({},
                     "the file is empty; a job file begins with name: and the sections of docs/job_file.md");
      return false;
    }
    if (builder.failed()) return false;
    root = builder.TakeRoot();
    Problems second(nullptr);
    TreeBuilder rest(second);
    if (parser.HandleNextDocument(rest)) {
      problems.AddAt(root.mark,
                     "expected one YAML document, found another after \"---\": write one job a file");
      return false;
    }
  } catch (const YAML::Exception& error) {
    // The library's marks are null for a few errors.
    const SourceMark mark = error.mark.is_null() ? SourceMark{} : MarkOf(error.mark);
    if (const std::optional<SourceMark> tab = TabThatIndents(text, mark.line); tab.has_value()) {
      problems.AddAt(*tab, "not valid YAML: a tab cannot indent, write spaces");
      return false;
    }
    problems.AddAt(mark, absl::StrCat("not valid YAML: ", error.msg));
    return false;
  }
  return true;
}

std::string DescribeNode(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMapping:
      return "a mapping";
    case YamlNode::Kind::kScalar:
      break;
  }
  std::string shown = node.text;
  if (shown.size() > 60) {
    size_t cut = 57;
    while ((static_cast<unsigned char>(shown[cut]) & 0xC0) == 0x80) --cut;  // never inside a character
    shown = absl::StrCat(shown.substr(0, cut), "...");
  }
  double number = 0;
  if (!node.quoted && absl::SimpleAtod(node.text, &number)) return absl::StrCat("the number ", shown);
  return absl::StrCat(node.quoted ? "the quoted text \"" : "\"", absl::Utf8SafeCEscape(shown), "\"");
}

}  // namespace accrue::spec
