// Facts of this process: CPUs, threads, memory, time. What cannot be read is left at its zero.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tprune {

// Nanoseconds of a clock that only goes forward.
std::int64_t now_ns();

// Reads "0,4-7" into sorted CPU numbers. Throws BadInput.
std::vector<int> parse_cpus(std::string_view list);

// Lets the calling thread, and every thread that it starts from now on, run on these CPUs only.
// Throws BadInput, which names the ones allowed, when any of them cannot be had.
void set_affinity(const std::vector<int>& cpus);

// The CPUs that the calling thread may run on.
std::vector<int> affinity();

struct Threads {
  int count = 0;
  std::vector<int> cpus;  // that any of them may run on, read from /proc/self/task/*/status
};

Threads threads();

struct MemoryUse {
  std::int64_t vm_rss_kib = 0;
  std::int64_t vm_hwm_kib = 0;
  std::int64_t rss_anon_kib = 0;
  std::int64_t rss_file_kib = 0;
};

MemoryUse memory_use();

// What the process has used so far; differences count.
struct Usage {
  std::int64_t thread_cpu_ns = 0;  // of the calling thread
  std::int64_t voluntary = 0;      // context switches of all threads
  std::int64_t involuntary = 0;
};

Usage usage_now();

// The first bytes of a small file of /proc or /sys, without the final newline; empty when it cannot be read.
std::string read_fact(const std::string& path);

// A fact that is a number; `absent` when it is not.
std::int64_t read_number(const std::string& path, std::int64_t absent);

}  // namespace tprune
