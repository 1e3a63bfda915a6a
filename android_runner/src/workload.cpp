#include "workload.h"

#include <unistd.h>

#include <chrono>
#include <thread>

#include "failure.h"

namespace tprune {
namespace {

constexpr std::size_t kMostSamples = 10'000'000;
constexpr std::int64_t kMillisecond = 1'000'000;

void check_parent(const Options& options) {
  if (options.parent != 0 && ::getppid() != options.parent) {
    throw Failed("the process that started this run is gone");
  }
}

void warm_up(const Options& options, const std::function<Sample(std::size_t)>& once, Measured& measured) {
  for (std::size_t i = 0;
       measured.warmup_runs < options.warmup || measured.warmup_ns < options.warmup_ms * kMillisecond; ++i) {
    check_parent(options);
    const Sample sample = once(i);
    if (i == 0) measured.first_ns = sample.total_ns;
    measured.warmup_ns += sample.total_ns;
    ++measured.warmup_runs;
  }
}

}  // namespace

Measured measure(const Options& options, const Amount& amount, const std::function<Sample(std::size_t)>& once,
                 const std::function<void(std::size_t)>& keep) {
  Measured measured;
  measured.samples.reserve(amount.count);
  warm_up(options, once, measured);
  const Thermometer thermometer;
  measured.before = thermometer.read();
  Sampler sampler(thermometer, options.sample_ms, options.affinity);
  std::int64_t total_ns = 0;
  std::int64_t cpu_ns = 0;
  for (std::size_t i = 0; i < amount.count || i % amount.whole != 0 || (total_ns < amount.min_ns && i < kMostSamples);
       ++i) {
    if (options.gap_ms > 0 && i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(options.gap_ms));
    check_parent(options);
    const Usage begin = usage_now();
    const Sample sample = once(i);
    const Usage end = usage_now();
    cpu_ns += end.thread_cpu_ns - begin.thread_cpu_ns;
    measured.voluntary += end.voluntary - begin.voluntary;
    measured.involuntary += end.involuntary - begin.involuntary;
    total_ns += sample.total_ns;
    measured.samples.push_back(sample);
    keep(i);
  }
  measured.during = sampler.stop();
  measured.after = thermometer.read();
  if (measured.warmup_runs == 0) measured.first_ns = measured.samples.front().total_ns;
  measured.cpu_share = total_ns == 0 ? 0.0 : static_cast<double>(cpu_ns) / static_cast<double>(total_ns);
  return measured;
}

}  // namespace tprune
