#include "ids.h"

#include <charconv>
#include <limits>
#include <string_view>

#include "failure.h"
#include "file.h"

namespace tprune {
namespace {

constexpr std::size_t kLargestFile = std::size_t{64} << 20;
constexpr std::size_t kMostSentences = 1'000'000;

Ids parse_line(std::string_view line, std::size_t longest) {
  if (line.empty()) throw BadInput("no token ids; give at least the one of </s>");
  Ids ids;
  const char* at = line.data();
  const char* end = at + line.size();
  for (;;) {
    std::int32_t id = -1;
    const auto [stop, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0) throw BadInput("not token ids separated by one space");
    if (ids.size() < longest)
      ids.push_back(id);
    else
      throw BadInput("more than " + std::to_string(longest) + " token ids, the most that this artefact takes");
    if (stop == end) return ids;
    if (*stop != ' ') throw BadInput("not token ids separated by one space");
    at = stop + 1;
  }
}

}  // namespace

std::vector<Ids> read_ids(const std::string& path, std::size_t longest) {
  const std::string file = read_file(path, kLargestFile);
  std::vector<Ids> sentences;
  std::string_view rest = file;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    const std::string where = path + " line " + std::to_string(sentences.size() + 1) + ": ";
    if (sentences.size() == kMostSentences) throw BadInput(where + "too many sentences");
    try {
      sentences.push_back(parse_line(rest.substr(0, end), longest));
    } catch (const BadInput& why) {
      throw BadInput(where + why.what());
    }
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  if (sentences.empty()) throw BadInput(path + " holds no sentences");
  return sentences;
}

void write_ids(const std::string& path, const std::vector<Ids>& sentences) {
  std::string text;
  for (const Ids& ids : sentences) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (i > 0) text += ' ';
      text += std::to_string(ids[i]);
    }
    text += '\n';
  }
  write_file(path, text);
}

}  // namespace tprune
