// SHA-256 (FIPS 180-4), streaming.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace tprune {

class Sha256 {
 public:
  void update(std::string_view bytes);
  std::string hex();  // ends the message; 64 lower-case digits

 private:
  void block(const unsigned char* bytes);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> rest_{};  // bytes that do not fill a block yet
  std::uint64_t total_ = 0;
};

}  // namespace tprune
