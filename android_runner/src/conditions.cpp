#include "conditions.h"

#include <algorithm>
#include <chrono>
#include <set>

#include "failure.h"
#include "machine.h"
#include "process.h"

namespace tprune {
namespace {

constexpr int kMostZones = 256;
constexpr std::size_t kMostSamples = 100'000;
constexpr std::int64_t kUnreadable = -1'000'000;

}  // namespace

Thermometer::Thermometer() {
  for (int cpu : possible_cpus()) {
    const std::string file = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cpufreq/scaling_cur_freq";
    if (read_number(file, -1) >= 0) clocks_.emplace_back(cpu, file);
  }
  std::set<std::string> taken;
  for (int zone = 0; zone < kMostZones; ++zone) {
    const std::string folder = "/sys/class/thermal/thermal_zone" + std::to_string(zone);
    const std::string type = read_fact(folder + "/type");
    if (type.empty() || read_number(folder + "/temp", kUnreadable) == kUnreadable) continue;
    std::string name = type;
    for (int copy = 2; !taken.insert(name).second; ++copy) name = type + "#" + std::to_string(copy);
    zones_.emplace_back(name, folder + "/temp");
  }
}

Conditions Thermometer::read() const {
  Conditions found;
  found.t_ns = now_ns();
  for (const auto& [cpu, file] : clocks_) {
    const std::int64_t khz = read_number(file, -1);
    if (khz >= 0) found.khz.emplace_back(cpu, khz);
  }
  for (const auto& [name, file] : zones_) {
    const std::int64_t value = read_number(file, kUnreadable);
    if (value == kUnreadable) continue;
    found.zones.emplace_back(name, value >= -200 && value <= 200 ? value * 1000 : value);  // some tell whole degrees
  }
  return found;
}

Sampler::Sampler(const Thermometer& thermometer, std::int64_t interval_ms, std::vector<int> avoid)
    : thermometer_(thermometer) {
  if (interval_ms == 0) return;
  thread_ = std::thread([this, interval_ms, avoid = std::move(avoid)] { loop(interval_ms, avoid); });
}

std::vector<Conditions> Sampler::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  return std::move(samples_);
}

void Sampler::loop(std::int64_t interval_ms, const std::vector<int>& avoid) {
  std::vector<int> others;
  for (int cpu : possible_cpus()) {
    if (!std::binary_search(avoid.begin(), avoid.end(), cpu)) others.push_back(cpu);
  }
  try {
    if (!avoid.empty() && !others.empty()) set_affinity(others);
  } catch (const BadInput&) {  // then it shares the CPUs of the run
  }
  std::unique_lock<std::mutex> lock(mutex_);
  const auto stopped = [this] { return stopping_; };
  while (!wake_.wait_for(lock, std::chrono::milliseconds(interval_ms), stopped)) {
    if (samples_.size() < kMostSamples) samples_.push_back(thermometer_.read());
  }
}

}  // namespace tprune
