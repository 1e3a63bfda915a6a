// A JSON document in memory, for small files that may be hostile: bounded in depth, strict, no duplicate keys.
//
//     const Json manifest = Json::parse(text);
//     manifest.object("limits").integer("source", 1, 4096);
//
// Everything that is missing or of another kind throws BadInput, which names the key.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tprune {

class Json {
 public:
  enum class Kind : std::uint8_t { null, boolean, integer, real, text, array, object };

  static Json parse(std::string_view text);

  Kind kind() const { return kind_; }
  const Json* find(std::string_view key) const;  // nullptr: not an object, or no such key

  // Members of an object.
  const Json& object(std::string_view key) const { return member(key, Kind::object, "an object"); }
  const Json& array(std::string_view key) const { return member(key, Kind::array, "a list"); }
  const std::string& text(std::string_view key) const { return member(key, Kind::text, "a string").text_; }
  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most) const;
  double number(std::string_view key) const;  // an integer or a real

  // The value itself; empty or zero when it is of another kind.
  const std::vector<Json>& items() const { return items_; }       // of an array, or the values of an object
  const std::vector<std::string>& keys() const { return keys_; }  // of an object, in the file's order
  const std::string& text() const { return text_; }
  std::int64_t integer() const { return integer_; }

 private:
  friend class JsonReader;
  const Json& member(std::string_view key, Kind kind, const char* what) const;

  Kind kind_ = Kind::null;
  std::int64_t integer_ = 0;  // also a boolean
  double real_ = 0;
  std::string text_;
  std::vector<Json> items_;
  std::vector<std::string> keys_;
};

}  // namespace tprune
