#include "common/help_formatter.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace accrue {
namespace {

constexpr size_t kWidth = 100, kNameColumns = 30;

// Breaks at spaces; what is written on lines of its own stays there.
std::vector<std::string> Wrapped(absl::string_view text, size_t columns) {
  std::vector<std::string> lines;
  for (const absl::string_view paragraph : absl::StrSplit(text, '\n')) {
    if (!paragraph.empty() && paragraph[0] == ' ') {  // indented: an example
      lines.emplace_back(paragraph);
      continue;
    }
    std::string line;
    for (const absl::string_view word : absl::StrSplit(paragraph, ' ')) {
      if (!line.empty() && line.size() + 1 + word.size() > columns) {
        lines.push_back(line);
        line = std::string(word);
      } else {
        absl::StrAppend(&line, line.empty() ? "" : " ", word);
      }
    }
    lines.push_back(line);
  }
  return lines;
}

std::string TwoColumns(std::string name, absl::string_view description) {
  std::string text = absl::StrCat("  ", name);
  if (text.size() + 2 > kNameColumns) absl::StrAppend(&text, "\n", std::string(kNameColumns, ' '));
  if (text.size() < kNameColumns) text.resize(kNameColumns, ' ');
  bool first = true;
  for (const std::string& line : Wrapped(description, kWidth - kNameColumns)) {
    if (!first) text.append(kNameColumns, ' ');
    absl::StrAppend(&text, line, "\n");
    first = false;
  }
  return text;
}

// "N" of an integer, "X" of a number, else what the type is called.
std::string Takes(const CLI::Option& option) {
  if (option.get_type_size() == 0) return "";
  const std::string full = option.get_type_name();
  if (absl::EndsWith(full, ":PORT")) return absl::StrCat(" ", full);
  const std::string type = full.substr(0, full.find(':'));
  if (type == "INT" || type == "UINT") return " N";
  if (type == "FLOAT") return " X";
  return absl::StrCat(" ", type);
}

}  // namespace

HelpFormatter::HelpFormatter() {
  label("SUBCOMMAND", "COMMAND");
  label("SUBCOMMANDS", "COMMANDS");
  label("Positionals", "Arguments");
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  std::string text;
  for (const std::string& line : Wrapped(app->get_description(), kWidth)) absl::StrAppend(&text, line, "\n");
  return text + "\n";
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  std::string description = option->get_description();
  const std::string standard = option->get_default_str();
  if (option->get_required() && !is_positional) absl::StrAppend(&description, " (required)");
  if (!standard.empty() && standard != "\"\"") absl::StrAppend(&description, " (default: ", standard, ")");
  if (!option->get_envname().empty())
    absl::StrAppend(&description, "; or the environment's ", option->get_envname());
  if (is_positional) return TwoColumns(option->get_name(true), description);
  return TwoColumns(absl::StrCat(make_option_name(option, false), Takes(*option)), description);
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  std::string sentence = command->get_description();
  for (size_t at = 0; (at = sentence.find_first_of(".:;", at)) != std::string::npos; ++at) {
    if (at + 1 == sentence.size() || sentence[at + 1] == ' ') {
      sentence.resize(at);
      break;
    }
  }
  return TwoColumns(command->get_name(), sentence);
}

}  // namespace accrue
