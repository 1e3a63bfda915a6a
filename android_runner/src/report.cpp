#include "report.h"

#include <cstdio>

#include "json_writer.h"

namespace tprune {
namespace {

constexpr int kSchema = 1;

#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "gcc " __VERSION__;
#endif

#if defined(__OPTIMIZE__)
constexpr bool kOptimised = true;
#else
constexpr bool kOptimised = false;
#endif

#if defined(__aarch64__)
constexpr const char* kArch = "aarch64";
#elif defined(__x86_64__)
constexpr const char* kArch = "x86_64";
#else
constexpr const char* kArch = "other";
#endif

std::vector<std::int64_t> wide(const std::vector<int>& numbers) {
  return {numbers.begin(), numbers.end()};
}

std::vector<std::int64_t> column(const std::vector<Sample>& samples, std::int64_t Sample::* field) {
  std::vector<std::int64_t> values;
  values.reserve(samples.size());
  for (const Sample& sample : samples) values.push_back(sample.*field);
  return values;
}

std::string hex(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

void begin(JsonWriter& json, const Options& options, bool ok) {
  json.field("schema", kSchema).field("kind", "run").field("ok", ok);
  json.field("nonce", options.nonce).field("task", name_of(options.task));
  json.field("program", identity().program).field("runner", TPRUNE_RUNNER_VERSION);
}

void put_settings(JsonWriter& json, const Options& options, const Report& report) {
  json.open("engine").field("name", identity().engine).field("version", report.engine_version).open("facts");
  for (const auto& [name, value] : report.facts) json.field(name, value);
  json.close().close();
  json.open("build").field("compiler", kCompiler).field("optimised", kOptimised);
  json.field("arch", kArch).field("sanitised", bool{TPRUNE_SANITIZED}).close();
  report.artefact.empty() ? json.null("artefact") : json.field("artefact", report.artefact);
  json.open("threads").field("asked", options.threads).field("got", report.threads_got).close();
  if (options.task == Task::seq2seq) {
    json.field("beams", static_cast<std::int64_t>(options.beams));
    json.field("max_length", static_cast<std::int64_t>(report.max_length));
  }
  json.open("affinity");
  options.affinity.empty() ? json.null("asked") : json.field("asked", wide(options.affinity));
  json.field("got", wide(report.affinity_got)).close();
}

void put_times(JsonWriter& json, const Options& options, const Report& report) {
  const Measured& measured = report.measured;
  json.field("load_ns", report.load_ns).field("first_ns", measured.first_ns);
  json.open("warmup").field("runs", measured.warmup_runs).field("ns", measured.warmup_ns).close();
  json.field("samples_ns", column(measured.samples, &Sample::total_ns));
  json.field("run_ns", column(measured.samples, &Sample::run_ns));
  if (options.task != Task::seq2seq) return;
  json.field("encoder_ns", column(measured.samples, &Sample::encoder_ns));
  json.field("step_ns", column(measured.samples, &Sample::step_ns));
  json.field("steps", column(measured.samples, &Sample::steps));
}

void put_outputs(JsonWriter& json, const Options& options, const Report& report) {
  json.open("outputs");
  if (options.task != Task::graph) {
    json.field("ids", "output.ids").close();
    return;
  }
  json.open_list("tensors");
  for (const OutputFile& output : report.tensors) {
    json.open_item().field("name", output.name).field("dtype", name_of(output.dtype));
    json.field("shape", std::vector<std::int64_t>(output.dims.begin(), output.dims.end()));
    json.field("file", output.file).close();
  }
  json.close().close();
}

void put_memory(JsonWriter& json, const char* when, const MemoryUse& use) {
  json.open(when).field("vm_rss_kib", use.vm_rss_kib).field("vm_hwm_kib", use.vm_hwm_kib);
  json.field("rss_anon_kib", use.rss_anon_kib).field("rss_file_kib", use.rss_file_kib).close();
}

// The members of a moment's conditions; the object is open already.
void put_conditions(JsonWriter& json, const Conditions& conditions) {
  json.field("t_ns", conditions.t_ns);
  if (!conditions.khz.empty()) {
    json.open("khz");
    for (const auto& [cpu, khz] : conditions.khz) json.field(std::to_string(cpu), khz);
    json.close();
  }
  if (!conditions.zones.empty()) {
    json.open("zones");
    for (const auto& [zone, value] : conditions.zones) json.field(zone, value);
    json.close();
  }
  json.close();
}

void put_machine(JsonWriter& json) {
  const Machine machine = read_machine();
  json.open("machine").field("uname", machine.uname).field("page_size", machine.page_bytes);
  json.field("hwcap", hex(machine.hwcap)).field("hwcap2", hex(machine.hwcap2)).open_list("cpus");
  for (const Cpu& cpu : machine.cpus) {
    json.open_item().field("id", cpu.id);
    if (cpu.max_khz > 0) json.field("max_khz", cpu.max_khz);
    if (cpu.capacity > 0) json.field("capacity", cpu.capacity);
    if (!cpu.governor.empty()) json.field("governor", cpu.governor);
    json.close();
  }
  json.close().close();
}

}  // namespace

std::string report_text(const Options& options, const Report& report) {
  const Measured& measured = report.measured;
  JsonWriter json;
  begin(json, options, true);
  put_settings(json, options, report);
  put_times(json, options, report);
  put_outputs(json, options, report);
  json.open("memory");
  put_memory(json, "start", report.start);
  put_memory(json, "loaded", report.loaded);
  put_memory(json, "end", report.end);
  json.close();
  json.open("switches").field("voluntary", measured.voluntary).field("involuntary", measured.involuntary).close();
  json.field("cpu_share", measured.cpu_share);
  json.open("conditions");
  put_conditions(json.open("before"), measured.before);
  put_conditions(json.open("after"), measured.after);
  json.open_list("during");
  for (const Conditions& moment : measured.during) put_conditions(json.open_item(), moment);
  json.close().close();
  put_machine(json);
  report.profile.empty() ? json.null("profile") : json.field("profile", report.profile);
  json.null("error");
  return json.finish();
}

std::string failure_text(const Options& options, const std::string& error) {
  JsonWriter json;
  begin(json, options, false);
  json.field("error", error);
  return json.finish();
}

std::string version_text(const std::string& engine_version) {
  JsonWriter json;
  json.field("schema", kSchema).field("program", identity().program).field("runner", TPRUNE_RUNNER_VERSION);
  json.field("engine", identity().engine);
  engine_version.empty() ? json.null("engine_version") : json.field("engine_version", engine_version);
  return json.finish();
}

}  // namespace tprune
