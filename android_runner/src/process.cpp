#include "process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <memory>
#include <set>

#include "failure.h"

namespace tprune {
namespace {

std::int64_t clock_ns(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// The text after `key` on its line of a /proc status file.
std::string_view status_field(std::string_view status, std::string_view key) {
  std::size_t at = status.rfind(key, 0) == 0 ? 0 : status.find("\n" + std::string(key));
  if (at == std::string_view::npos) return {};
  at += key.size() + (at == 0 ? 0 : 1);
  at = std::min(status.find_first_not_of(" \t", at), status.size());
  return status.substr(at, status.find('\n', at) - at);
}

std::string cpus_text(const std::vector<int>& cpus) {
  std::string text;
  for (int cpu : cpus) text += (text.empty() ? "" : ",") + std::to_string(cpu);
  return text;
}

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

}  // namespace

std::int64_t now_ns() {
  return clock_ns(CLOCK_MONOTONIC);
}

std::vector<int> parse_cpus(std::string_view list) {
  const auto fail = [&] { throw BadInput("CPUs must be given like 4,6-7, not '" + std::string(list) + "'"); };
  std::set<int> cpus;
  const char* at = list.data();
  const char* end = at + list.size();
  for (;;) {
    int first = -1;
    auto parsed = std::from_chars(at, end, first);
    if (parsed.ec != std::errc()) fail();
    int last = first;
    if (parsed.ptr != end && *parsed.ptr == '-') {
      parsed = std::from_chars(parsed.ptr + 1, end, last);
      if (parsed.ec != std::errc()) fail();
    }
    if (first < 0 || last < first || last >= CPU_SETSIZE) fail();
    for (int cpu = first; cpu <= last; ++cpu) cpus.insert(cpu);
    if (parsed.ptr == end) return {cpus.begin(), cpus.end()};
    if (*parsed.ptr != ',') fail();
    at = parsed.ptr + 1;
  }
}

void set_affinity(const std::vector<int>& cpus) {
  const std::vector<int> before = affinity();
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu : cpus) CPU_SET(static_cast<std::size_t>(cpu), &set);
  // The kernel drops CPUs that it does not have without a word, so the result is read back.
  if (::sched_setaffinity(0, sizeof set, &set) != 0 || affinity() != cpus) {
    throw BadInput("--affinity " + cpus_text(cpus) + " cannot be had; this process may use " + cpus_text(before));
  }
}

std::vector<int> affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
  }
  return cpus;
}

Threads threads() {
  const std::unique_ptr<DIR, CloseFolder> folder(::opendir("/proc/self/task"));
  Threads found;
  std::set<int> cpus;
  while (const dirent* entry = folder ? ::readdir(folder.get()) : nullptr) {
    const std::string name = entry->d_name;
    if (name[0] == '.') continue;
    const std::string status = read_fact("/proc/self/task/" + name + "/status");
    const std::string_view allowed = status_field(status, "Cpus_allowed_list:");
    if (allowed.empty()) continue;  // it has just ended
    ++found.count;
    const std::vector<int> own = parse_cpus(allowed);
    cpus.insert(own.begin(), own.end());
  }
  found.cpus.assign(cpus.begin(), cpus.end());
  return found;
}

MemoryUse memory_use() {
  const std::string status = read_fact("/proc/self/status");
  const auto kib = [&](const char* key) {
    const std::string_view text = status_field(status, key);
    std::int64_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
  };
  return {kib("VmRSS:"), kib("VmHWM:"), kib("RssAnon:"), kib("RssFile:")};
}

Usage usage_now() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return {clock_ns(CLOCK_THREAD_CPUTIME_ID), used.ru_nvcsw, used.ru_nivcsw};
}

std::string read_fact(const std::string& path) {
  const int handle = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (handle < 0) return {};
  char text[4096];
  const ssize_t got = ::read(handle, text, sizeof text);
  ::close(handle);
  std::string fact(text, got < 0 ? 0 : static_cast<std::size_t>(got));
  while (!fact.empty() && fact.back() == '\n') fact.pop_back();
  return fact;
}

std::int64_t read_number(const std::string& path, std::int64_t absent) {
  const std::string text = read_fact(path);
  std::int64_t value = absent;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end ? value : absent;
}

}  // namespace tprune
