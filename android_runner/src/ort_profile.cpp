#include "ort_profile.h"

#include <string_view>

#include "failure.h"
#include "file.h"

namespace tprune {
namespace {

constexpr std::size_t kLargestTrace = std::size_t{1} << 30;

}  // namespace

// ORT writes "[", then one event a line, each with `"pid" :12345,` and a comma at the end but for the last, then "]".
void ProfileMerger::add(const std::string& name, const std::string& path) {
  const std::string file = read_file(path, kLargestTrace);
  const std::string process = std::to_string(++processes_);
  if (!events_.empty()) events_ += ",\n";
  events_ += R"({"ph": "M", "name": "process_name", "pid": )" + process + R"(, "args": {"name": ")" + name + R"("}})";
  std::string_view rest = file;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (!line.empty() && line.back() == ',') line.remove_suffix(1);
    if (line.empty() || line == "[" || line == "]") continue;
    constexpr std::string_view kProcess = "\"pid\" :";
    const std::size_t begin = line.find(kProcess);
    const std::size_t comma = line.find(',', begin);
    if (line.front() != '{' || line.back() != '}' || comma == std::string_view::npos) {
      throw Failed("the profile " + path + " has an unknown format");
    }
    events_ += ",\n";
    events_ += line.substr(0, begin + kProcess.size());
    events_ += process;
    events_ += line.substr(comma);
  }
}

}  // namespace tprune
