// The connection to a coordinator.
#include "client/job_client.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "tests/client/fake_job_service.h"

namespace accrue {
namespace {

TEST(JobClient, AwaitConnection_CoordinatorIsBack_TheNextCallFindsIt) {
  auto service = std::make_unique<FakeJobService>();
  const std::string address = service->Start();
  const std::unique_ptr<JobClient> client = JobClient::Create(address);
  ASSERT_TRUE(client->List().ok());
  service.reset();
  ASSERT_FALSE(client->List().ok());
  ASSERT_FALSE(client->List().ok());
  service = std::make_unique<FakeJobService>();
  if (service->Start(address) != address) GTEST_SKIP() << "another process has taken " << address << " meanwhile";
  client->AwaitConnection(60'000);
  EXPECT_TRUE(client->List().ok());
}

}  // namespace
}  // namespace accrue
