// The status page, the HTTP server that serves it, and the addresses that they listen on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <cmath>

#include "coordinator/server/address.h"
#include "coordinator/server/http_server.h"
#include "coordinator/server/status_page.h"

namespace accrue {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(StatusPageTest, Escape_Markup_IsHarmless) {
  EXPECT_EQ(EscapeHtml("<a href=\"x\">'&'</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
}

TEST(StatusPageTest, Sparkline_FewOrInfinitePoints_IsEmpty) {
  EXPECT_EQ(Sparkline({}), "");
  EXPECT_EQ(Sparkline({{0, 1}, {1, std::nan("")}}), "");
}

TEST(StatusPageTest, Sparkline_ManyPoints_ReachesFromFirstToLast) {
  std::vector<std::pair<double, double>> points;
  for (int x = 0; x < 5000; ++x) points.emplace_back(x, 5000 - x);
  const std::string svg = Sparkline(points);
  EXPECT_THAT(svg, HasSubstr("points=\"1.0,2.0 "));
  EXPECT_THAT(svg, HasSubstr("239.0,46.0 \"/>"));
  EXPECT_LT(svg.size(), 10000u);
}

TEST(StatusPageTest, Texts_AreForPeople) {
  EXPECT_EQ(Shortened(12345), "12.3k");
  EXPECT_EQ(Shortened(2.5e9), "2.5G");
  EXPECT_EQ(DurationText(59), "59 s");
  EXPECT_EQ(DurationText(125), "2 min 5 s");
  EXPECT_EQ(DurationText(4200), "1 h 10 min");
}

TEST(StatusPageTest, WorkerRow_ASlowOne_StandsOut) {
  const auto row = [](double relative) {
    v1::WorkerStatus worker;
    worker.set_unit_seconds(relative * 0.01);
    worker.set_relative_unit_time(relative);
    return WorkerRow(worker);
  };
  EXPECT_THAT(row(1), HasSubstr("<td class=\"n\">10.0 ms</td><td class=n>1.0×</td>"));
  EXPECT_THAT(row(3.26), HasSubstr("<td class=\"n slow\">32.6 ms</td><td class=n>3.3×</td>"));
  EXPECT_THAT(row(0), HasSubstr("<td class=\"n\">–</td><td class=n>–</td>"));
}

TEST(StatusPageTest, WorkerRow_Memory_InTheClientsUnits) {
  const auto row = [](int64_t bytes) {
    v1::WorkerStatus worker;
    worker.set_memory_bytes(bytes);
    return WorkerRow(worker);
  };
  EXPECT_THAT(row(int64_t{300} << 20), HasSubstr("<td class=n>300.0 MiB</td>"));
  EXPECT_THAT(row(int64_t{5} << 30), HasSubstr("<td class=n>5.0 GiB</td>"));
}

TEST(HttpServerTest, Start_ServesEachPathAndRefusesOthers) {
  const auto server = HttpServer::Start("127.0.0.1", 0, {{"/a", [] { return HttpAnswer{200, "text/x", "hello"}; }},
                                                         {"/b", [] { return HttpAnswer{503, "text/x", "no"}; }}});
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  EXPECT_EQ(client.Get("/a")->body, "hello");
  EXPECT_EQ(client.Get("/a")->get_header_value("Content-Type"), "text/x");
  EXPECT_EQ(client.Get("/b")->status, 503);
  EXPECT_EQ(client.Get("/c")->status, 404);
}

TEST(HttpServerTest, Start_PortInUse_NamesIt) {
  const auto first = HttpServer::Start("127.0.0.1", 0, {});
  ASSERT_TRUE(first.ok());
  const int port = (*first)->port();
  const absl::Status second = HttpServer::Start("127.0.0.1", port, {}).status();
  EXPECT_TRUE(absl::IsUnavailable(second));
  EXPECT_THAT(second.message(), HasSubstr("127.0.0.1:" + std::to_string(port)));
}

TEST(AddressTest, Parse_Loopback_IsTaken) {
  EXPECT_EQ(ParseLoopbackAddress("127.0.0.1:7437")->port, 7437);
  EXPECT_EQ(ParseLoopbackAddress("localhost:0")->host, "127.0.0.1");
  EXPECT_EQ(ParseLoopbackAddress("[::1]:80")->host, "::1");
  EXPECT_EQ(AddressText("::1", 80), "[::1]:80");
}

TEST(AddressTest, Parse_BeyondThisMachine_IsRefusedWithTheReason) {
  for (const char* text : {"0.0.0.0:7437", "192.168.1.2:1", "[::]:7437"}) {
    const absl::Status status = ParseLoopbackAddress(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << text;
    EXPECT_THAT(status.message(), HasSubstr("TLS"));
  }
}

TEST(AddressTest, Parse_NoAddress_SaysWhatOneLooksLike) {
  for (const char* text : {"", "7437", ":7437", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "example.com:1"}) {
    const absl::Status status = ParseLoopbackAddress(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(status.message(), HasSubstr("127.0.0.1:7437"));
  }
}

}  // namespace
}  // namespace accrue
