// Writes one JSON document, member by member, on one line.
//
//     JsonWriter json;
//     json.field("schema", 1);
//     json.open("memory").field("vm_rss_kib", 17).close();
//     json.finish();                                       // {"schema": 1, "memory": {"vm_rss_kib": 17}}
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tprune {

class JsonWriter {
 public:
  JsonWriter() : text_("{") {}

  JsonWriter& field(std::string_view key, std::int64_t value);
  JsonWriter& field(std::string_view key, int value) { return field(key, std::int64_t{value}); }
  JsonWriter& field(std::string_view key, double value);  // must be finite
  JsonWriter& field(std::string_view key, bool value);
  JsonWriter& field(std::string_view key, std::string_view value);
  JsonWriter& field(std::string_view key, const char* value) { return field(key, std::string_view(value)); }
  JsonWriter& field(std::string_view key, const std::vector<std::int64_t>& values);
  JsonWriter& null(std::string_view key);

  JsonWriter& open(std::string_view key) { return open(key, '{', '}'); }
  JsonWriter& open_list(std::string_view key) { return open(key, '[', ']'); }
  JsonWriter& open_item();  // an object inside a list
  JsonWriter& close();

  std::string finish();  // the document, with a newline; nothing may be open

 private:
  JsonWriter& open(std::string_view key, char begin, char end);
  void comma();
  void name(std::string_view key);
  void quoted(std::string_view value);

  std::string text_;
  std::string ends_ = "}";  // what closes each thing that is open, outermost first
};

}  // namespace tprune
