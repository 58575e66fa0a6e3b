#include "worker/core/resident_memory.h"

#include <unistd.h>

#include <cstdio>

namespace accrue {

int64_t ResidentMemoryBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long long total_pages = 0, resident_pages = 0, file_pages = 0;
  const int fields = std::fscanf(file, "%lld %lld %lld", &total_pages, &resident_pages, &file_pages);
  std::fclose(file);
  return fields == 3 ? (resident_pages - file_pages) * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace accrue
