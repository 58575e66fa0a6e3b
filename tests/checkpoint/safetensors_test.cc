#include "worker/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/philox.h"
#include "tests/checkpoint/temporary_folder.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string FileBytes(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

class SafetensorsTest : public testing::Test {
 protected:
  absl::StatusOr<SafetensorsFile> OpenBytes(const std::string& bytes) {
    WriteBytes(bytes);
    return SafetensorsFile::Open(FileSystem::Real(), path_);
  }

  // A new file: cutting the old one would wait for the disk.
  void WriteBytes(const std::string& bytes) {
    ASSERT_TRUE(FileSystem::Real().RemoveAll(path_).ok());
    std::ofstream(path_, std::ios::binary) << bytes;
  }

  // Opening a file with this header is refused, and the message has this part and the path.
  void ExpectRefused(const std::string& header, const std::string& data, const std::string& part) {
    const auto file = OpenBytes(FileBytes(header, data));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << header;
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(part));
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(path_));
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_.File("model.safetensors");
};

TEST_F(SafetensorsTest, Open_OfAFileByHand_FindsItsTensors) {
  const std::string data("\0\0\x80\x3f\0\0\0\x40\x80\x3f\x07", 11);
  const auto file = OpenBytes(FileBytes(
      R"({"b":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("__metadata__":{"format":"pt"},"flag":{"dtype":"BOOL","shape":[],"data_offsets":[10,11]},)"
      R"("none":{"dtype":"F32","shape":[0,5],"data_offsets":[11,11]}}   )",
      data));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), 4u);
  EXPECT_EQ(file->tensors()[0].name, "a");
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->Find("c"), nullptr);
  const SafetensorsTensor& a = *file->Find("a");
  EXPECT_THAT(a.shape, ElementsAre(2, 1));
  EXPECT_EQ(a.elements, 2);
  float values[2] = {};
  ASSERT_TRUE(file->ReadFloats(a, values).ok());
  EXPECT_THAT(values, ElementsAre(1.0f, 2.0f));
  ASSERT_TRUE(file->ReadFloats(a, 1, 1, values).ok());
  EXPECT_EQ(values[0], 2.0f);
  ASSERT_TRUE(file->ReadFloats(*file->Find("b"), values).ok());
  EXPECT_EQ(values[0], 1.0f);
  const SafetensorsTensor& flag = *file->Find("flag");
  EXPECT_EQ(*file->Data(flag), 7);
  EXPECT_EQ(flag.elements, 1);
  EXPECT_EQ(file->ReadFloats(flag, values).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file->Find("none")->elements, 0);
}

TEST_F(SafetensorsTest, ReadFloats_OfHalfPrecision_ConvertsEveryKind) {
  const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x83ff, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x8000, 0x3555};
  const std::string data(reinterpret_cast<const char*>(halves), sizeof(halves));
  const auto file = OpenBytes(FileBytes(R"({"h":{"dtype":"F16","shape":[10],"data_offsets":[0,20]}})", data));
  ASSERT_TRUE(file.ok()) << file.status();
  float values[10];
  ASSERT_TRUE(file->ReadFloats(file->tensors()[0], values).ok());
  const float expected[] = {1,        -2,        0x1p-24f, -0x1.ff8p-15f, 65504,
                            INFINITY, -INFINITY, NAN,      -0.0f,         0x1.554p-2f};
  for (int i = 0; i < 10; ++i) {
    if (std::isnan(expected[i])) {
      EXPECT_TRUE(std::isnan(values[i]));
    } else {
      EXPECT_EQ(std::memcmp(&values[i], &expected[i], 4), 0) << values[i] << " " << expected[i];
    }
  }
}

TEST_F(SafetensorsTest, Open_OfNoFile_IsNotFound) {
  EXPECT_EQ(SafetensorsFile::Open(FileSystem::Real(), path_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsTest, Open_WithALyingHeaderLength_IsRefused) {
  std::string bytes = FileBytes("{}", "");
  EXPECT_TRUE(OpenBytes(bytes).ok());
  for (uint64_t length :
       {uint64_t{3}, uint64_t{1} << 20, uint64_t{100'000'001}, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::memcpy(bytes.data(), &length, 8);
    const auto file = OpenBytes(bytes);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(absl::StrCat(length)));
  }
  for (size_t size = 0; size < 8; ++size) EXPECT_FALSE(OpenBytes(bytes.substr(0, size)).ok());
}

TEST_F(SafetensorsTest, Open_WithAHeaderThatIsNotJson_IsRefused) {
  ExpectRefused("", "", "not JSON");
  ExpectRefused("{", "", "not JSON");
  ExpectRefused("{} x", "", "not JSON");
  ExpectRefused("{\"\xff\":1}", "", "not JSON");
  ExpectRefused("[]", "", "not a JSON object");
  ExpectRefused("3", "", "not a JSON object");
  ExpectRefused("{\"a\":1}", "", "expected an object");
  ExpectRefused(std::string(100000, '['), "", "not a JSON object");
  ExpectRefused(R"({"a":{"shape":)" + std::string(100000, '['), "", "expected whole numbers");
}

TEST_F(SafetensorsTest, Open_WithDuplicates_IsRefused) {
  const std::string tensor = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  ExpectRefused(R"({"a":)" + tensor + R"(,"a":)" + tensor + "}", "1234", "\"a\" appears twice");
  ExpectRefused(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234",
                "\"dtype\" appears twice");
  ExpectRefused(R"({"__metadata__":{"x":"1","x":"2"}})", "", "\"x\" appears twice");
  ExpectRefused(R"({"__metadata__":{"x":1}})", "", "expected a string");
}

TEST_F(SafetensorsTest, Open_WithATensorOfTheWrongForm_NamesIt) {
  const auto with = [](const std::string& fields) { return R"({"wte.weight":{)" + fields + "}}"; };
  ExpectRefused(with(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), "1234",
                "\"wte.weight\": unknown dtype \"F33\"");
  ExpectRefused(with(R"("shape":[1],"data_offsets":[0,4])"), "1234", "\"wte.weight\": no \"dtype\"");
  ExpectRefused(with(R"("dtype":"F32","data_offsets":[0,4])"), "1234", "no \"shape\"");
  ExpectRefused(with(R"("dtype":"F32","shape":[1])"), "1234", "no \"data_offsets\"");
  ExpectRefused(with(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), "1234", "expected a list");
  ExpectRefused(with(R"("dtype":4,"shape":[1],"data_offsets":[0,4])"), "1234", "expected a string");
  ExpectRefused(with(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "1234",
                "found a negative number");
  ExpectRefused(with(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "1234", "found a fraction");
  ExpectRefused(with(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), "1234", "found a list");
  ExpectRefused(with(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "1234", "two numbers");
  ExpectRefused(with(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), "1234", "two numbers");
  ExpectRefused(with(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"offset":1)"), "1234",
                "unknown key \"offset\"");
  ExpectRefused(with(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"),
                "1234", "dimensions");
  ExpectRefused(R"({")" + std::string(2000, 'x') + R"(":{}})", "", "longer than");
}

TEST_F(SafetensorsTest, Open_WithShapeAndOffsetsThatDisagree_IsRefused) {
  const auto tensor = [](const std::string& shape, const std::string& offsets) {
    return absl::StrCat(R"({"w":{"dtype":"F32","shape":)", shape, R"(,"data_offsets":)", offsets, "}}");
  };
  ExpectRefused(tensor("[2]", "[0,4]"), "1234", "needs 8 bytes");
  ExpectRefused(tensor("[1]", "[4,0]"), "1234", "needs 4 bytes");
  ExpectRefused(tensor("[4294967296,4294967296]", "[0,0]"), "", "larger than any file");
  ExpectRefused(tensor("[4611686018427387904]", "[0,0]"), "", "larger than any file");
  ExpectRefused(tensor("[18446744073709551615]", "[0,4]"), "1234", "impossible");
  ExpectRefused(tensor("[1]", "[18446744073709551612,18446744073709551616]"), "1234", "data_offsets");
}

TEST_F(SafetensorsTest, Open_WithOffsetsThatLie_IsRefused) {
  const auto two = [](const std::string& a, const std::string& b) {
    return absl::StrCat(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)", a,
                        R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)", b, "}}");
  };
  ExpectRefused(two("[0,4]", "[4,8]"), "1234567", "\"b\": data_offsets [4, 8] lie beyond");
  ExpectRefused(two("[0,4]", "[0,4]"), "1234", "overlap");
  ExpectRefused(two("[0,4]", "[2,6]"), "123456", "\"b\": data_offsets [2, 6] overlap");
  ExpectRefused(two("[0,4]", "[6,10]"), "1234567890", "gap after byte 4");
  ExpectRefused(two("[4,8]", "[8,12]"), "123456789012", "gap after byte 0");
  ExpectRefused(two("[0,4]", "[4,8]"), "123456789", "cover 8 of the file's 9 bytes");
  ExpectRefused(two("[0,4]", "[18446744073709551608,18446744073709551612]"), "1234", "lie beyond");
}

// No mutation of a good file may crash, hang or read out of bounds; the sanitizers watch.
TEST_F(SafetensorsTest, Open_OfMutatedFiles_NeverCrashes) {
  const std::string good = FileBytes(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I64","shape":[1,1],"data_offsets":[8,16]}})",
      "0123456789abcdef");
  ASSERT_TRUE(OpenBytes(good).ok());
  int refused = 0;
  for (uint32_t trial = 0; trial < 1500; ++trial) {
    std::string bytes = good;
    const PhiloxBlock random = Philox4x32({trial, 0, 0, 0}, 9);
    bytes[random[0] % bytes.size()] = static_cast<char>(random[1]);
    if (trial % 3 == 0) bytes.erase(random[2] % bytes.size(), random[3] % 5);
    if (trial % 7 == 0) bytes.insert(random[3] % bytes.size(), bytes.substr(random[2] % bytes.size(), 9));
    WriteBytes(bytes);
    const auto file = SafetensorsFile::Open(FileSystem::Real(), path_);
    if (!file.ok()) {
      ++refused;
      EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    float values[16];
    for (const SafetensorsTensor& tensor : file->tensors()) file->ReadFloats(tensor, values).IgnoreError();
  }
  EXPECT_GT(refused, 1000);
}

TEST_F(SafetensorsTest, Writer_InPieces_WritesWhatTheReaderReads) {
  const float a[] = {1, 2, 3, 4, 5, 6};
  const uint16_t b[] = {0x3f80, 0x4000};
  auto writer = SafetensorsWriter::Create(FileSystem::Real(), path_,
                                          {{.name = "x.weight|p", .shape = {2, 3}},
                                           {.name = "scalar", .dtype = SafetensorsDType::kF32, .shape = {}},
                                           {.name = "b", .dtype = SafetensorsDType::kBF16, .shape = {2}}},
                                          {{"format", "pt"}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append(a, 10).ok());
  ASSERT_TRUE((*writer)->Append(reinterpret_cast<const char*>(a) + 10, 14).ok());
  EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE((*writer)->Append(a, 4).ok());
  EXPECT_EQ((*writer)->Append(b, 5).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE((*writer)->Append(b, 4).ok());
  ASSERT_TRUE((*writer)->Finish().ok());

  const std::string bytes = *FileSystem::Real().ReadAll(path_, 10000);
  EXPECT_EQ((*writer)->size_bytes(), bytes.size());
  EXPECT_EQ((*writer)->hash(), HashBytes(bytes.data(), bytes.size()));
  const auto file = SafetensorsFile::Open(FileSystem::Real(), path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file->Data(file->tensors()[0])) % 8, 0u);
  float values[6];
  ASSERT_TRUE(file->ReadFloats(*file->Find("x.weight|p"), values).ok());
  EXPECT_THAT(values, ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_TRUE(file->Find("scalar")->shape.empty());
  EXPECT_EQ(file->metadata().at("format"), "pt");
}

TEST_F(SafetensorsTest, Writer_OfImpossibleTensors_Refuses) {
  const auto create = [&](std::vector<SafetensorsTensor> tensors) {
    return SafetensorsWriter::Create(FileSystem::Real(), path_, std::move(tensors), {}).status();
  };
  EXPECT_EQ(create({{.name = "a", .shape = {1}}, {.name = "a", .shape = {1}}}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(create({{.name = "__metadata__", .shape = {1}}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(create({{.name = "a", .shape = {-1}}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(FileSystem::Real().Exists(path_));
}

}  // namespace
}  // namespace accrue
