#include "json_writer.h"

#include <cstdio>

namespace tprune {
namespace {

// Length of the UTF-8 character that begins at `at`; 0 when there is none.
std::size_t character(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned>(static_cast<unsigned char>(text[i])) : 0U;
  };
  const unsigned first = byte(at);
  const std::size_t length = first < 0x80 ? 1 : (first >> 5) == 0x6 ? 2 : (first >> 4) == 0xE ? 3 : 4;
  if (length == 4 && (first >> 3) != 0x1E) return 0;
  unsigned code = length == 1 ? first : first & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) >> 6) != 2) return 0;
    code = (code << 6) | (byte(at + i) & 0x3FU);
  }
  constexpr unsigned kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return code < kLeast[length] || code > 0x10FFFF || surrogate ? 0 : length;
}

}  // namespace

JsonWriter& JsonWriter::field(std::string_view key, std::int64_t value) {
  name(key);
  text_ += std::to_string(value);
  return *this;
}

JsonWriter& JsonWriter::field(std::string_view key, double value) {
  name(key);
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.6f", value);
  text_ += digits;
  return *this;
}

JsonWriter& JsonWriter::field(std::string_view key, bool value) {
  name(key);
  text_ += value ? "true" : "false";
  return *this;
}

JsonWriter& JsonWriter::field(std::string_view key, std::string_view value) {
  name(key);
  quoted(value);
  return *this;
}

JsonWriter& JsonWriter::field(std::string_view key, const std::vector<std::int64_t>& values) {
  name(key);
  text_ += '[';
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) text_ += ", ";
    text_ += std::to_string(values[i]);
  }
  text_ += ']';
  return *this;
}

JsonWriter& JsonWriter::null(std::string_view key) {
  name(key);
  text_ += "null";
  return *this;
}

JsonWriter& JsonWriter::open(std::string_view key, char begin, char end) {
  name(key);
  text_ += begin;
  ends_ += end;
  return *this;
}

JsonWriter& JsonWriter::open_item() {
  comma();
  text_ += '{';
  ends_ += '}';
  return *this;
}

JsonWriter& JsonWriter::close() {
  text_ += ends_.back();
  ends_.pop_back();
  return *this;
}

std::string JsonWriter::finish() {
  return text_ + "}\n";
}

void JsonWriter::comma() {
  if (text_.back() != '{' && text_.back() != '[') text_ += ", ";
}

void JsonWriter::name(std::string_view key) {
  comma();
  quoted(key);
  text_ += ": ";
}

void JsonWriter::quoted(std::string_view value) {
  text_ += '"';
  for (std::size_t at = 0; at < value.size();) {
    const std::size_t length = character(value, at);
    const char c = value[at];
    if (length == 0) {
      text_ += "\\ufffd";  // not UTF-8: a file name, or what an engine said
    } else if (c == '"' || c == '\\') {
      text_ += '\\';
      text_ += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      text_ += escape;
    } else {
      text_ += value.substr(at, length);
    }
    at += length == 0 ? 1 : length;
  }
  text_ += '"';
}

}  // namespace tprune
