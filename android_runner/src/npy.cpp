#include "npy.h"

#include <charconv>
#include <cstring>
#include <string_view>

#include "failure.h"
#include "file.h"

namespace tprune {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kLongestHeader = 1 << 16;

struct Code {
  std::string_view text;
  DType dtype;
};

constexpr Code kCodes[] = {
    {"<f4", DType::float32}, {"<f8", DType::float64}, {"<f2", DType::float16},
    {"<i8", DType::int64},   {"<i4", DType::int32},   {"<i2", DType::int16},
    {"|i1", DType::int8},    {"|u1", DType::uint8},   {"|b1", DType::boolean},
};

// The header is a Python dict with three known keys, in any order: {'descr': '<f4', 'fortran_order': False, 'shape':
// (2, 3), }
class Header {
 public:
  explicit Header(std::string_view text) : text_(text) {
    expect("{");
    while (!accept("}")) {
      const std::string_view key = quoted();
      expect(":");
      if (key == "descr") {
        dtype = descr();
        ++known_;
      } else if (key == "fortran_order") {
        if (!accept("False")) fail("it is not in C order");
        ++known_;
      } else if (key == "shape") {
        dims = shape();
        ++known_;
      } else {
        fail("unknown key");
      }
      if (!accept(",") && text_.substr(0, 1) != "}") fail("',' or '}' is missing");
    }
    if (known_ != 3) fail("descr, fortran_order and shape are needed once each");
  }

  DType dtype = DType::float32;
  Dims dims;

 private:
  [[noreturn]] static void fail(const std::string& why) { throw BadInput("damaged .npy header: " + why); }

  bool accept(std::string_view word) {
    while (!text_.empty() && text_.front() == ' ') text_.remove_prefix(1);
    if (text_.substr(0, word.size()) != word) return false;
    text_.remove_prefix(word.size());
    while (!text_.empty() && text_.front() == ' ') text_.remove_prefix(1);
    return true;
  }

  void expect(std::string_view word) {
    if (!accept(word)) fail("'" + std::string(word) + "' is missing");
  }

  std::string_view quoted() {
    expect("'");
    const std::size_t end = text_.find('\'');
    if (end == std::string_view::npos) fail("a string does not end");
    const std::string_view found = text_.substr(0, end);
    text_.remove_prefix(end + 1);
    return found;
  }

  DType descr() {
    const std::string_view text = quoted();
    for (const Code& code : kCodes) {
      if (code.text == text) return code.dtype;
    }
    fail("its type is not one of <f2 <f4 <f8 <i2 <i4 <i8 |i1 |u1 |b1");
  }

  Dims shape() {
    Dims found;
    expect("(");
    while (!accept(")")) {
      std::int64_t size = -1;
      const char* end = text_.data() + text_.size();
      const auto [stop, error] = std::from_chars(text_.data(), end, size);
      if (error != std::errc() || size < 0) fail("a size is not a number");
      text_.remove_prefix(static_cast<std::size_t>(stop - text_.data()));
      if (found.rank() == Dims::kMost) fail("too many dimensions");
      found.push_back(size);
      if (!accept(",") && text_.substr(0, 1) != ")") fail("',' or ')' is missing");
    }
    return found;
  }

  std::string_view text_;
  int known_ = 0;
};

// Bytes before the array, the header's text excluded: magic, version and the header's length.
std::size_t preamble(std::string_view file) {
  if (file.substr(0, kMagic.size()) != kMagic || file.size() < 12) throw BadInput("not a .npy file");
  const char version = file[6];
  if (version < 1 || version > 3) throw BadInput("unknown .npy version " + std::to_string(int{version}));
  return version == 1 ? 10 : 12;
}

Buffer parse(std::string_view file, Memory& memory) {
  const std::size_t begin = preamble(file);
  std::size_t length = 0;
  for (std::size_t i = begin; i-- > 8;) length = length << 8 | static_cast<unsigned char>(file[i]);
  if (length > kLongestHeader || length > file.size() - begin) throw BadInput("damaged .npy header: its length");
  const Header header(file.substr(begin, length));
  const std::string_view body = file.substr(begin + length);
  const std::size_t bytes = tensor_bytes(header.dtype, header.dims, Memory::kMost);
  if (bytes != body.size()) {
    throw BadInput("an array of " + header.dims.text() + " " + name_of(header.dtype) + " has " + std::to_string(bytes) +
                   " bytes, the file " + std::to_string(body.size()));
  }
  Buffer array = memory.tensor(header.dtype, header.dims);
  if (bytes > 0) std::memcpy(array.data, body.data(), bytes);
  return array;
}

std::string_view code_of(DType dtype) {
  for (const Code& code : kCodes) {
    if (code.dtype == dtype) return code.text;
  }
  throw Failed(std::string("no .npy type for ") + name_of(dtype));
}

}  // namespace

Buffer read_npy(const std::string& path, Memory& memory) {
  const std::string file = read_file(path, Memory::kMost);
  try {
    return parse(file, memory);
  } catch (const BadInput& why) {
    throw BadInput("cannot read " + path + ": " + why.what());
  }
}

void write_npy(const std::string& path, const Buffer& array) {
  std::string header = "{'descr': '" + std::string(code_of(array.dtype)) + "', 'fortran_order': False, 'shape': (";
  for (std::int64_t size : array.dims) header += std::to_string(size) + ", ";
  header += "), }";
  header.append(63 - (header.size() + 10) % 64, ' ');  // the array begins at a multiple of 64 bytes
  header += '\n';
  std::string file(kMagic);
  file += '\1';
  file += '\0';
  file += static_cast<char>(header.size() & 0xFF);
  file += static_cast<char>(header.size() >> 8);
  file += header;
  const std::size_t bytes = tensor_bytes(array.dtype, array.dims, Memory::kMost);
  if (bytes > 0) file.append(static_cast<const char*>(array.data), bytes);
  write_file(path, file);
}

}  // namespace tprune
