#include <charconv>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/spec/hints.h"
#include "common/spec/job_spec.h"
#include "common/spec/problems.h"
#include "common/spec/yaml_tree.h"

namespace accrue {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using spec::DescribeNode;
using spec::Problems;
using spec::YamlNode;

// Walks the YAML tree against the message's descriptor.
class Reader {
 public:
  Reader(SourceMap& source, Problems& problems) : source_(source), problems_(problems) {}

  void ReadMessage(const YamlNode& node, const std::string& path, Message& message) {
    const Descriptor& descriptor = *message.GetDescriptor();
    if (node.kind != YamlNode::Kind::kMapping) {
      problems_.AddAt(node.mark, absl::StrCat(path, ": expected a mapping such as {", Example(descriptor),
                                              "}, found ", DescribeNode(node)));
      problems_.Spoil(path);
      return;
    }
    std::map<std::string, SourceMark> seen;
    for (size_t i = 0; i + 1 < node.children.size(); i += 2) {
      ReadEntry(node.children[i], node.children[i + 1], path, message, seen);
    }
  }

 private:
  static std::string Example(const Descriptor& descriptor) {
    return absl::StrCat(descriptor.field(0)->name(), ": ...");
  }

  void ReadEntry(const YamlNode& key, const YamlNode& value, const std::string& path, Message& message,
                 std::map<std::string, SourceMark>& seen) {
    const Descriptor& descriptor = *message.GetDescriptor();
    if (key.kind != YamlNode::Kind::kScalar) {
      problems_.AddAt(key.mark, absl::StrCat("expected a field's name, found ", DescribeNode(key)));
      return;
    }
    const std::string shown = absl::Utf8SafeCEscape(key.text.substr(0, 100));
    const auto [first, inserted] = seen.emplace(key.text, key.mark);
    if (!inserted) {
      problems_.AddAt(key.mark, absl::StrCat("duplicate field \"", shown,
                                             "\": it is already written in line ", first->second.line));
      return;
    }
    const FieldDescriptor* field = descriptor.FindFieldByName(key.text);
    if (field == nullptr) {
      problems_.AddAt(key.mark, absl::StrCat("unknown field \"", shown, "\"",
                                             spec::HintForUnknownField(key.text, descriptor)));
      return;
    }
    const std::string child = path.empty() ? key.text : absl::StrCat(path, ".", key.text);
    source_.marks[child] =
        value.kind == YamlNode::Kind::kScalar || field->is_repeated() ? value.mark : key.mark;
    if (value.kind == YamlNode::Kind::kNull) {
      problems_.AddAt(key.mark, absl::StrCat(child, " has no value: write one, or leave the field out"));
      problems_.Spoil(child);
      return;
    }
    if (field->is_repeated()) {
      ReadList(value, child, *field, message);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      ReadMessage(value, child, *message.GetReflection()->MutableMessage(&message, field));
    } else {
      ReadScalar(value, child, *field, message);
    }
  }

  void ReadList(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                Message& message) {
    if (node.kind != YamlNode::Kind::kSequence) {
      Mistyped(node, path,
               node.kind == YamlNode::Kind::kScalar
                   ? absl::StrCat("a list such as [", node.quoted ? "\"" : "", node.text.substr(0, 60),
                                  node.quoted ? "\"" : "", "]")
                   : std::string("a list"));
      return;
    }
    if (node.children.empty()) {
      problems_.AddAt(
          node.mark,
          absl::StrCat(path, " is an empty list: write at least one value, or leave the field out"));
      problems_.Spoil(path);
    }
    for (size_t i = 0; i < node.children.size(); ++i) {
      const std::string item = absl::StrCat(path, "[", i, "]");
      source_.marks[item] = node.children[i].mark;
      ReadScalar(node.children[i], item, field, message);
      if (problems_.Spoiled(item)) problems_.Spoil(path);
    }
  }

  void ReadScalar(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                  Message& message) {
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return ReadString(node, path, field, message);
      case FieldDescriptor::CPPTYPE_INT64:
        return ReadInteger<int64_t>(node, path, field, message);
      case FieldDescriptor::CPPTYPE_UINT64:
        return ReadInteger<uint64_t>(node, path, field, message);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return ReadDouble(node, path, field, message);
      case FieldDescriptor::CPPTYPE_BOOL:
        return ReadBool(node, path, field, message);
      default:
        ACCRUE_CHECK(false && "a type that the job file does not have");
    }
  }

  void Mistyped(const YamlNode& node, const std::string& path, absl::string_view expected,
                absl::string_view hint = "") {
    problems_.AddAt(node.mark,
                    absl::StrCat(path, ": expected ", expected, ", found ", DescribeNode(node), hint));
    problems_.Spoil(path);
  }

  void ReadString(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                  Message& message) {
    if (node.kind != YamlNode::Kind::kScalar) return Mistyped(node, path, "text");
    if (node.text.empty()) return Mistyped(node, path, "text that is not empty");
    const Reflection& reflection = *message.GetReflection();
    if (field.is_repeated()) {
      reflection.AddString(&message, &field, node.text);
    } else {
      reflection.SetString(&message, &field, node.text);
    }
  }

  template <typename Integer>
  void ReadInteger(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                   Message& message) {
    const std::string& text = node.text;
    constexpr absl::string_view kExpected =
        std::is_signed_v<Integer> ? "an integer" : "an integer that is not negative";
    if (node.kind != YamlNode::Kind::kScalar) return Mistyped(node, path, kExpected);
    if (node.quoted) return Mistyped(node, path, kExpected, ": remove the quotes");
    Integer value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc::result_out_of_range && end == text.data() + text.size()) {
      return Mistyped(node, path, kExpected, ", which does not fit 64 bits");
    }
    if (error != std::errc() || end != text.data() + text.size()) {
      double number = 0;
      if (absl::SimpleAtod(text, &number) && number == std::floor(number) && std::fabs(number) < 1e15 &&
          absl::StrCat(static_cast<int64_t>(number)) != text) {
        return Mistyped(node, path, kExpected, absl::StrCat(": write ", static_cast<int64_t>(number)));
      }
      return Mistyped(node, path, kExpected);
    }
    if (text.size() > 1 && text[text[0] == '-' ? 1 : 0] == '0') {
      return Mistyped(node, path, kExpected,
                      ", which some YAML readers take as octal: write it without leading zeros");
    }
    const Reflection& reflection = *message.GetReflection();
    if constexpr (std::is_signed_v<Integer>) {
      reflection.SetInt64(&message, &field, value);
    } else {
      reflection.SetUInt64(&message, &field, value);
    }
  }

  void ReadDouble(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                  Message& message) {
    if (node.kind != YamlNode::Kind::kScalar) return Mistyped(node, path, "a number");
    if (node.quoted) return Mistyped(node, path, "a number", ": remove the quotes");
    const std::string lower = absl::AsciiStrToLower(node.text);
    if (lower == ".nan" || lower == ".inf" || lower == "-.inf" || lower == "+.inf") {
      return Mistyped(node, path, "a finite number");
    }
    double value = 0;
    const char* const begin = node.text.data() + (node.text[0] == '+' ? 1 : 0);
    const char* const end = node.text.data() + node.text.size();
    const auto [stop, error] = std::from_chars(begin, end, value);
    if (error == std::errc::result_out_of_range)
      return Mistyped(node, path, "a number that fits 64-bit floating point");
    if (error != std::errc() || stop != end) return Mistyped(node, path, "a number");
    if (!std::isfinite(value)) return Mistyped(node, path, "a finite number");
    const Reflection& reflection = *message.GetReflection();
    if (field.is_repeated()) {
      reflection.AddDouble(&message, &field, value);
    } else {
      reflection.SetDouble(&message, &field, value);
    }
  }

  void ReadBool(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                Message& message) {
    if (node.kind != YamlNode::Kind::kScalar) return Mistyped(node, path, "true or false");
    if (node.quoted) return Mistyped(node, path, "true or false", ": remove the quotes");
    if (node.text != "true" && node.text != "false") return Mistyped(node, path, "true or false");
    message.GetReflection()->SetBool(&message, &field, node.text == "true");
  }

  SourceMap& source_;
  Problems& problems_;
};

// What only the file as written can show: once the folder's shape is merged in, both are there.
// Clears the surplus fields.
void CheckFromStandsAlone(v1::ModelSpec& model, Problems& problems) {
  if (model.from().empty()) return;
  const Descriptor& descriptor = *model.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    if (field.name() == "from" || field.name() == "dropout") continue;
    if (model.GetReflection()->HasField(model, &field)) {
      const std::string path = absl::StrCat("model.", field.name());
      problems.Add(
          path,
          absl::StrCat(path, " is written beside model.from, whose config.json decides it: remove one"));
      model.GetReflection()->ClearField(&model, &field);
    }
  }
}

}  // namespace

absl::StatusOr<ParsedJob> ParseJob(absl::string_view text, const std::string& file_name) {
  ParsedJob parsed;
  parsed.source.file_name = file_name;
  Problems problems(&parsed.source);
  YamlNode root;
  if (!spec::ReadYaml(text, root, problems)) return problems.ToStatus();
  parsed.source.marks[""] = root.mark;
  if (root.kind != YamlNode::Kind::kMapping) {
    problems.AddAt(root.mark, absl::StrCat("expected a mapping of fields such as name: headers, found ",
                                           DescribeNode(root)));
    return problems.ToStatus();
  }
  Reader(parsed.source, problems).ReadMessage(root, "", parsed.spec);
  v1::JobSpec complete = parsed.spec;
  if (complete.has_model()) CheckFromStandsAlone(*complete.mutable_model(), problems);
  // A default that cannot be told has its cause reported by the checks.
  FillDefaults(complete).IgnoreError();
  spec::CheckSpec(complete, problems);
  if (!problems.empty()) return problems.ToStatus();
  return parsed;
}

absl::StatusOr<v1::JobSpec> ParseJobText(absl::string_view text, const std::string& file_name) {
  absl::StatusOr<ParsedJob> parsed = ParseJob(text, file_name);
  if (!parsed.ok()) return parsed.status();
  return std::move(parsed->spec);
}

}  // namespace accrue
