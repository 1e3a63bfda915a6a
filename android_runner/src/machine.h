// The machine that the runner finds itself on, for the report.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tprune {

struct Cpu {
  int id = 0;
  std::int64_t max_khz = 0;   // 0: unknown
  std::int64_t capacity = 0;  // 0: unknown; the fastest core has 1024
  std::string governor;       // empty: unknown
};

struct Machine {
  std::string uname;
  std::int64_t page_bytes = 0;
  std::uint64_t hwcap = 0;
  std::uint64_t hwcap2 = 0;
  std::vector<Cpu> cpus;
};

// The CPUs that the kernel may ever have, by number.
std::vector<int> possible_cpus();

Machine read_machine();

}  // namespace tprune
