// Clock frequencies and temperatures at one moment, and a thread that reads them at intervals.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tprune {

// What cannot be read is left out.
struct Conditions {
  std::int64_t t_ns = 0;
  std::vector<std::pair<int, std::int64_t>> khz;            // CPU -> clock frequency now
  std::vector<std::pair<std::string, std::int64_t>> zones;  // thermal zone's type -> thousandths of a degree Celsius
};

// Knows which files tell frequencies and temperatures here.
class Thermometer {
 public:
  Thermometer();
  Conditions read() const;

 private:
  std::vector<std::pair<int, std::string>> clocks_;         // CPU -> file
  std::vector<std::pair<std::string, std::string>> zones_;  // type -> file
};

// Reads a thermometer every `interval_ms` until it goes; on CPUs other than `avoid` when there are any.
class Sampler {
 public:
  Sampler(const Thermometer& thermometer, std::int64_t interval_ms, std::vector<int> avoid);
  ~Sampler() { stop(); }
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  std::vector<Conditions> stop();  // ends the thread and returns what it has read, in order

 private:
  void loop(std::int64_t interval_ms, const std::vector<int>& avoid);

  const Thermometer& thermometer_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::vector<Conditions> samples_;
  std::thread thread_;
};

}  // namespace tprune
