#include "common/data_tools/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/data/dataset.h"
#include "common/data_tools/documents.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/data_tools/prepare_testing.h"

namespace accrue {
namespace {

using data_testing::DocumentText;
using data_testing::FilesOf;
using data_testing::OptionsFor;
using data_testing::TemporaryFolder;
using data_testing::WriteExamples;
using data_testing::WriteTextCorpus;
using testing::ElementsAre;
using testing::HasSubstr;

PrepareReport Prepare(const PrepareOptions& options, std::vector<std::string>* messages = nullptr) {
  PrepareHooks hooks;
  if (messages != nullptr) hooks.message = [messages](const std::string& line) { messages->push_back(line); };
  data_testing::FailingFileSystem file_system(1 << 30,
                                              absl::InternalError("unused"));  // does not wait for the disk
  const auto report = PrepareData(file_system, options, hooks);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.value_or(PrepareReport{});
}

absl::Status Error(const PrepareOptions& options) {
  return PrepareData(FileSystem::Real(), options, PrepareHooks()).status();
}

// Documents of one split of a folder prepared with the byte tokenizer.
std::vector<std::string> Documents(const std::string& directory, const std::string& split) {
  const auto manifest = ReadDataManifest(FileSystem::Real(), directory);
  EXPECT_TRUE(manifest.ok()) << manifest.status();
  std::vector<std::string> documents;
  std::string document;
  for (const DataManifestShard& entry : manifest->shards) {
    if (entry.split != split) continue;
    const auto shard = Shard::Open(FileSystem::Real(), JoinPath(directory, entry.name));
    EXPECT_TRUE(shard.ok()) << shard.status();
    std::vector<int32_t> tokens(static_cast<size_t>((*shard)->tokens()));
    (*shard)->Copy(0, (*shard)->tokens(), tokens.data());
    for (const int32_t token : tokens) {
      if (token < 256) {
        document.push_back(static_cast<char>(token));
      } else {
        documents.push_back(std::exchange(document, ""));
      }
    }
  }
  EXPECT_EQ(document, "");
  return documents;
}

TEST(PrepareTest, PrepareData_AnyNumberOfThreads_WritesTheSameBytes) {
  for (const char* tokenizer : {"bytes", "sentencepiece"}) {
    for (const bool masked : {false, true}) {
      TemporaryFolder folder;
      if (masked) {
        WriteExamples(folder, 200);
      } else {
        WriteTextCorpus(folder, 60);
      }
      std::map<std::string, std::string> expected;
      for (const int threads : {1, 2, 5}) {
        PrepareOptions options = OptionsFor(folder, "out");  // the same name, as options are recorded
        options.tokenizer = tokenizer;
        options.threads = threads;
        std::filesystem::remove_all(options.output);
        Prepare(options);
        const auto files = FilesOf(options.output);
        EXPECT_GT(files.size(), masked ? 8u : 5u);
        if (expected.empty()) expected = files;
        EXPECT_EQ(files, expected) << tokenizer << " with " << threads << " threads";
      }
    }
  }
}

TEST(PrepareTest, PrepareData_TextFiles_EveryDocumentInExactlyOnePart) {
  TemporaryFolder folder;
  WriteTextCorpus(folder, 60);
  const PrepareReport report = Prepare(OptionsFor(folder, "out"));
  const auto train = Documents(folder / "out", "train"), validation = Documents(folder / "out", "validation");
  EXPECT_EQ(report.train_documents, static_cast<int64_t>(train.size()));
  EXPECT_EQ(report.validation_documents, static_cast<int64_t>(validation.size()));
  EXPECT_GE(validation.size(), 3u);
  EXPECT_LE(validation.size(), 25u);
  std::vector<std::string> all = train, expected;
  all.insert(all.end(), validation.begin(), validation.end());
  for (int i = 0; i < 60; ++i) expected.push_back(DocumentText(i));
  EXPECT_THAT(all, testing::UnorderedElementsAreArray(expected));
  // Folders in order of their names.
  EXPECT_EQ(train.front().substr(0, 10), "document 0");
}

TEST(PrepareTest, PrepareData_AnotherSeed_HoldsOutOtherDocuments) {
  TemporaryFolder folder;
  WriteTextCorpus(folder, 60);
  PrepareOptions options = OptionsFor(folder, "a");
  Prepare(options);
  options = OptionsFor(folder, "b");
  options.seed = 1;
  Prepare(options);
  EXPECT_NE(Documents(folder / "a", "validation"), Documents(folder / "b", "validation"));
}

TEST(PrepareTest, PrepareData_MoreFilesLater_HeldOutOnesStayHeldOut) {
  TemporaryFolder folder;
  WriteTextCorpus(folder, 40);
  Prepare(OptionsFor(folder, "a"));
  WriteTextCorpus(folder, 60);
  Prepare(OptionsFor(folder, "b"));
  EXPECT_THAT(Documents(folder / "b", "validation"),
              testing::IsSupersetOf(Documents(folder / "a", "validation")));
}

TEST(PrepareTest, PrepareData_FewDocuments_OneIsHeldOutAndOneIsNot) {
  TemporaryFolder folder;
  WriteTextCorpus(folder, 2);
  for (const double fraction : {0.0001, 0.5}) {
    for (uint64_t seed = 0; seed < 8; ++seed) {
      PrepareOptions options = OptionsFor(folder, absl::StrCat("out", fraction, "-", seed));
      options.validation_fraction = fraction;
      options.seed = seed;
      const PrepareReport report = Prepare(options);
      EXPECT_EQ(report.train_documents, 1);
      EXPECT_EQ(report.validation_documents, 1);
    }
  }
  PrepareOptions options = OptionsFor(folder, "none");
  options.validation_fraction = 0;
  EXPECT_EQ(Prepare(options).train_documents, 2);
}

TEST(PrepareTest, PrepareData_OneTextDocument_ItsEndIsHeldOut) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&text, "line ", i, "\n");
  folder.Write("in/only.txt", text);
  std::vector<std::string> messages;
  Prepare(OptionsFor(folder, "out"), &messages);
  const auto train = Documents(folder / "out", "train"), validation = Documents(folder / "out", "validation");
  ASSERT_EQ(train.size(), 1u);
  ASSERT_EQ(validation.size(), 1u);
  EXPECT_EQ(train[0] + validation[0], text);
  EXPECT_NEAR(static_cast<double>(validation[0].size()), 0.2 * static_cast<double>(text.size()), 20);
  EXPECT_EQ(validation[0].substr(0, 6), "\nline ");
  EXPECT_THAT(messages, testing::Contains(HasSubstr("there is one document only: what follows its byte")));
}

TEST(PrepareTest, PrepareData_LargeDocument_HasTheTokensOfTheWhole) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; text.size() < 5 * DocumentSource::kBatchBytes; ++i) {
    absl::StrAppend(&text, "  line of ", i, " words\n", i % 7 == 0 ? "\n \n" : "");
  }
  folder.Write("in/large.txt", text);
  folder.Write("in/small.txt", "small\n");
  for (const char* kind : {"sentencepiece", "gpt2"}) {
    PrepareOptions options = OptionsFor(folder, kind);
    options.tokenizer = kind;
    options.shard_tokens = 1 << 30;
    if (options.tokenizer == "gpt2") options.model = "tests/tokenizer/golden";
    Prepare(options);
    const auto tokenizer = Tokenizer::Load(FileSystem::Real(), folder / (std::string(kind) + "/tokenizer"));
    ASSERT_TRUE(tokenizer.ok());
    std::vector<int32_t> expected = *(*tokenizer)->Encode(text);
    expected.push_back((*tokenizer)->end_of_document());
    std::vector<int32_t> found;
    for (const char* name : {"/train-00000.bin", "/validation-00000.bin"}) {
      const auto shard = Shard::Open(FileSystem::Real(), folder / (kind + std::string(name)));
      ASSERT_TRUE(shard.ok()) << shard.status();
      if ((*shard)->tokens() < 100) continue;  // the small document's
      found.resize(static_cast<size_t>((*shard)->tokens()));
      (*shard)->Copy(0, (*shard)->tokens(), found.data());
    }
    EXPECT_EQ(found, expected);
  }
}

TEST(PrepareTest, PrepareData_PromptsAndCompletions_MasksPrompts) {
  TemporaryFolder folder;
  folder.Write("in/a.jsonl",
               "{\"prompt\": \"ab\", \"completion\": \"cd\"}\n\n{\"prompt\": \"\", \"completion\": \"e\"}\n"
               "{\"completion\": \"\", \"prompt\": \"fgh\"}");
  PrepareOptions options = OptionsFor(folder, "out");
  options.validation_fraction = 0;
  options.shard_tokens = 6;  // the second example begins a shard
  const PrepareReport report = Prepare(options);
  ASSERT_EQ(report.manifest.shards.size(), 2u);
  std::vector<ShardReference> shards;
  for (const auto& shard : report.manifest.shards) {
    const auto pin = PinShard(FileSystem::Real(), folder / ("out/" + shard.name));
    ASSERT_TRUE(pin.ok()) << pin.status();
    EXPECT_FALSE(pin->mask_path.empty());
    shards.push_back(*pin);
  }
  const auto dataset = Dataset::Open(FileSystem::Real(), shards, {.sequence_length = 5, .vocabulary = 257});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->sequences(), 3);
  std::vector<int32_t> tokens(5), targets(5);
  (*dataset)->Read(0, tokens.data(), targets.data());
  EXPECT_THAT(tokens, ElementsAre('a', 'b', 'c', 'd', 256));
  EXPECT_THAT(targets, ElementsAre(-1, 'c', 'd', 256, -1));
  (*dataset)->Read(1, tokens.data(), targets.data());
  EXPECT_THAT(tokens, ElementsAre('e', 256, 0, 0, 0));
  EXPECT_THAT(targets, ElementsAre(256, -1, -1, -1, -1));
  (*dataset)->Read(2, tokens.data(), targets.data());
  EXPECT_THAT(tokens, ElementsAre('f', 'g', 'h', 256, 0));
  EXPECT_THAT(targets, ElementsAre(-1, -1, 256, -1, -1));
}

TEST(PrepareTest, PrepareData_JsonlText_EachLineIsADocument) {
  TemporaryFolder folder;
  folder.Write("in/a.jsonl",
               "{\"text\": \"one\\ntwo\"}\r\n{\"text\": \"\"}\n   \n{\"text\": \"\\u00e9\", \"id\": 3}\n");
  PrepareOptions options = OptionsFor(folder, "out");
  options.validation_fraction = 0;
  Prepare(options);
  EXPECT_THAT(Documents(folder / "out", "train"), ElementsAre("one\ntwo", "\u00e9"));
}

TEST(PrepareTest, PrepareData_LargeVocabulary_Uses32Bits) {
  TemporaryFolder folder;
  folder.Write("in/a.txt", "text\n");
  folder.Write("in/b.txt", "more\n");
  // A vocabulary of more than 65,536 tokens: the golden one and names that no merge makes.
  std::string vocabulary = *FileSystem::Real().ReadAll("tests/tokenizer/golden/vocab.json", 1 << 20);
  vocabulary.pop_back();
  for (int id = 701; id < 66000; ++id) absl::StrAppend(&vocabulary, ",\"extra ", id, "\":", id);
  const bool has_701 = vocabulary.find(":700") != std::string::npos;
  ASSERT_TRUE(has_701);
  folder.Write("model/vocab.json", vocabulary + "}");
  folder.Write("model/merges.txt", *FileSystem::Real().ReadAll("tests/tokenizer/golden/merges.txt", 1 << 20));
  PrepareOptions options = OptionsFor(folder, "out");
  options.tokenizer = "gpt2";
  options.model = folder / "model";
  Prepare(options);
  EXPECT_EQ(InspectShard(FileSystem::Real(), folder / "out/train-00000.bin")->format, "llm.c v7 uint32");
}

TEST(PrepareTest, PrepareData_BadInputs_NameThePlace) {
  TemporaryFolder folder;
  PrepareOptions options = OptionsFor(folder, "out");
  const auto message = [&] { return std::string(Error(options).message()); };
  EXPECT_TRUE(absl::IsNotFound(Error(options)));
  EXPECT_EQ(message(), "input " + (folder / "in") + " does not exist; expected a file or a folder");
  std::filesystem::create_directories(folder / "in");
  EXPECT_EQ(message(), "found no text in 1 inputs (0 files, 0 of them binary)");
  folder.Write("in/empty.txt", "");
  folder.Write("in/binary", std::string("\0\1", 2));
  EXPECT_EQ(message(), "found no text in 1 inputs (2 files, 1 of them binary)");
  const std::string bad =
      folder.Write("in/bad.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n{\"text\": oops}\n");
  EXPECT_EQ(message(), bad + ":4:10: expected a JSON object, found something that is not JSON");
  folder.Write("in/bad.jsonl", "{\"text\": \"a\"}\n{\"prompt\": \"b\", \"completion\": \"c\"}\n");
  EXPECT_EQ(message(),
            bad + ":2: expected \"text\" as in the first record, found \"prompt\" and \"completion\"");
  folder.Write("in/bad.jsonl", "{\"prompt\": \"b\", \"completion\": \"c\"}\n");
  const std::string text = folder.Write("in/text.txt", "text");
  EXPECT_EQ(message(), bad + " has \"prompt\" and \"completion\", " + text +
                           " has \"text\": expected one kind in a data set; prepare them separately");
  std::filesystem::remove_all(folder / "in");
  folder.Write("in/a.jsonl", "{\"text\": \"\"}\n{\"text\": \"\"}\n");
  EXPECT_EQ(message(), "the inputs gave no training tokens: every document is empty");
}

TEST(PrepareTest, PrepareData_BadOptions_SayWhatIsExpected) {
  TemporaryFolder folder;
  folder.Write("in/a.txt", "text\n");
  const auto message = [&](auto change) {
    PrepareOptions options = OptionsFor(folder, "out");
    change(&options);
    return std::string(Error(options).message());
  };
  EXPECT_EQ(message([](auto* o) { o->inputs.clear(); }), "expected at least one input: a file or a folder");
  EXPECT_EQ(message([](auto* o) { o->tokenizer = "bpe"; }),
            "expected the tokenizer bytes, sentencepiece or gpt2, found \"bpe\"");
  EXPECT_EQ(message([](auto* o) { o->tokenizer = "gpt2"; }),
            "the tokenizer gpt2 needs its vocab.json and merges.txt: give their folder as the model");
  EXPECT_EQ(message([](auto* o) { o->validation_fraction = 0.6; }),
            "expected a validation fraction of 0 to 0.5, found 0.6");
  EXPECT_EQ(message([](auto* o) { o->shard_tokens = 0; }),
            "expected 1 to 2147483647 tokens a shard, found 0");
  EXPECT_EQ(message([](auto* o) { o->vocabulary = 10; }),
            "expected a vocabulary of 300 to 1048576 pieces, found 10");
  EXPECT_THAT(message([&](auto* o) { o->tokenizer = "gpt2", o->model = folder.path(); }),
              HasSubstr("expected vocab.json in the folder"));
  EXPECT_THAT(message([&](auto* o) { o->tokenizer = "sentencepiece", o->model = folder / "in/a.txt"; }),
              HasSubstr("a.txt: expected a SentencePiece model"));
  EXPECT_THAT(message([](auto* o) { o->include = {"*.md"}; }), HasSubstr("does --include match any name?"));
}

// Damaged JSONL is refused with a place or read, and never crashes.
TEST(PrepareTest, PrepareData_MutatedJsonl_NeverCrashes) {
  TemporaryFolder folder;
  WriteExamples(folder, 12);
  const std::string good = folder.Read("in/examples.jsonl");
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    std::string lines = good;
    for (int i = 0; i < 3; ++i) {
      if (random() % 3 == 0) lines.resize(1 + random() % lines.size());
      lines[random() % lines.size()] =
          static_cast<char>(random() % 3 == 0 ? random() : "{}\",:\\\n"[random() % 7]);
    }
    folder.Write("in/examples.jsonl", lines);
    data_testing::FailingFileSystem file_system(1000, absl::InternalError("unused"));
    const auto report = PrepareData(file_system, OptionsFor(folder, "out"), PrepareHooks());
    if (!report.ok()) {
      EXPECT_TRUE(absl::IsInvalidArgument(report.status())) << report.status();
    }
  }
}

}  // namespace
}  // namespace accrue
