#include "json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <unordered_set>

#include "failure.h"

namespace tprune {

namespace {

constexpr int kDeepest = 32;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

void append_utf8(std::string& text, std::uint32_t code) {
  const auto byte = [&](std::uint32_t value) { text.push_back(static_cast<char>(static_cast<unsigned char>(value))); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xC0 | (code >> 6));
    byte(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    byte(0xE0 | (code >> 12));
    byte(0x80 | ((code >> 6) & 0x3F));
    byte(0x80 | (code & 0x3F));
  } else {
    byte(0xF0 | (code >> 18));
    byte(0x80 | ((code >> 12) & 0x3F));
    byte(0x80 | ((code >> 6) & 0x3F));
    byte(0x80 | (code & 0x3F));
  }
}

}  // namespace

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  Json document() {
    Json json = value(0);
    skip_space();
    if (at_ != text_.size()) fail("more text after the end");
    return json;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw BadInput("not JSON at byte " + std::to_string(at_) + ": " + what);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }

  void expect(char wanted) {
    skip_space();
    if (peek() != wanted) fail(std::string("'") + wanted + "' is missing");
    ++at_;
  }

  bool accept(char wanted) {
    skip_space();
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }

  Json value(int depth) {
    if (depth > kDeepest) fail("nested more than " + std::to_string(kDeepest) + " deep");
    skip_space();
    Json json;
    switch (peek()) {
      case '{':
        members(json, depth);
        break;
      case '[':
        elements(json, depth);
        break;
      case '"':
        json.kind_ = Json::Kind::text;
        json.text_ = string();
        break;
      case 't':
      case 'f':
      case 'n':
        word(json);
        break;
      default:
        number(json);
    }
    return json;
  }

  void members(Json& json, int depth) {
    json.kind_ = Json::Kind::object;
    expect('{');
    if (accept('}')) return;
    std::unordered_set<std::string> seen;
    do {
      skip_space();
      json.keys_.push_back(string());
      if (!seen.insert(json.keys_.back()).second) fail("the key '" + json.keys_.back() + "' appears twice");
      expect(':');
      json.items_.push_back(value(depth + 1));
    } while (accept(','));
    expect('}');
  }

  void elements(Json& json, int depth) {
    json.kind_ = Json::Kind::array;
    expect('[');
    if (accept(']')) return;
    do {
      json.items_.push_back(value(depth + 1));
    } while (accept(','));
    expect(']');
  }

  void word(Json& json) {
    for (const auto& [name, kind, truth] : {std::tuple{"true", Json::Kind::boolean, 1},
                                            {"false", Json::Kind::boolean, 0},
                                            {"null", Json::Kind::null, 0}}) {
      const std::string_view wanted(name);
      if (text_.substr(at_, wanted.size()) != wanted) continue;
      at_ += wanted.size();
      json.kind_ = kind;
      json.integer_ = truth;
      return;
    }
    fail("an unknown word");
  }

  void number(Json& json) {
    const std::size_t begin = at_;
    if (peek() == '-') ++at_;
    const std::size_t digits = at_;
    skip_digits();
    if (at_ - digits > 1 && text_[digits] == '0') fail("a number with a leading zero");
    bool real = false;
    if (peek() == '.') {
      real = true;
      ++at_;
      skip_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      real = true;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      skip_digits();
    }
    json.kind_ = real ? Json::Kind::real : Json::Kind::integer;
    if (real) {
      json.real_ = std::strtod(std::string(text_.substr(begin, at_ - begin)).c_str(), nullptr);
      if (!std::isfinite(json.real_)) fail("a number too large");
      return;
    }
    const char* end = text_.data() + at_;
    if (std::from_chars(text_.data() + begin, end, json.integer_).ec != std::errc()) fail("an integer beyond 64 bits");
  }

  void skip_digits() {
    if (!is_digit(peek())) fail("a value is missing");
    while (is_digit(peek())) ++at_;
  }

  std::string string() {
    if (peek() != '"') fail("a string is missing");
    ++at_;
    std::string found;
    while (at_ < text_.size() && text_[at_] != '"') {
      const char c = text_[at_++];
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      if (c == '\\') {
        escape(found);
      } else {
        found.push_back(c);
      }
    }
    if (at_ == text_.size()) fail("a string does not end");
    ++at_;
    return found;
  }

  void escape(std::string& found) {
    static constexpr std::string_view kLetters = "\"\\/bfnrt";
    static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    const char letter = peek();
    ++at_;
    if (letter == 'u') {
      std::uint32_t code = hex4();
      if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {  // the first half of a pair
        at_ += 2;
        const std::uint32_t low = hex4();
        if (low < 0xDC00 || low >= 0xE000) fail("half a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      }
      if (code >= 0xD800 && code < 0xE000) fail("half a surrogate pair");
      append_utf8(found, code);
    } else if (const std::size_t which = kLetters.find(letter); letter != '\0' && which != std::string_view::npos) {
      found.push_back(kMeanings[which]);
    } else {
      fail("an unknown escape");
    }
  }

  std::uint32_t hex4() {
    std::uint32_t code = 0;
    const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, code, 16);
    if (digits.size() != 4 || error != std::errc() || stop != end) fail("\\u needs four hex digits");
    at_ += 4;
    return code;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

Json Json::parse(std::string_view text) {
  return JsonReader(text).document();
}

const Json* Json::find(std::string_view key) const {
  const auto found = std::find(keys_.begin(), keys_.end(), key);
  return found == keys_.end() ? nullptr : &items_[static_cast<std::size_t>(found - keys_.begin())];
}

const Json& Json::member(std::string_view key, Kind kind, const char* what) const {
  const Json* found = find(key);
  if (found == nullptr) throw BadInput("'" + std::string(key) + "' is missing");
  if (found->kind_ != kind) throw BadInput("'" + std::string(key) + "' is not " + what);
  return *found;
}

std::int64_t Json::integer(std::string_view key, std::int64_t least, std::int64_t most) const {
  const std::int64_t found = member(key, Kind::integer, "an integer").integer_;
  if (found < least || found > most) {
    throw BadInput("'" + std::string(key) + "' is " + std::to_string(found) + "; it must be from " +
                   std::to_string(least) + " to " + std::to_string(most));
  }
  return found;
}

double Json::number(std::string_view key) const {
  const Json* found = find(key);
  if (found != nullptr && found->kind_ == Kind::integer) return static_cast<double>(found->integer_);
  return member(key, Kind::real, "a number").real_;
}

}  // namespace tprune
