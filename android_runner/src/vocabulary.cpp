// The loops work on kLanes numbers at a time through the compilers' generic vectors, which become NEON or SSE
// instructions; every machine adds in the same order and gives the same result.
#include "vocabulary.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "failure.h"

namespace tprune {
namespace {

constexpr std::size_t kLanes = 4;  // more would be faster with AVX, and much slower with compilers that must split them
constexpr float kLowest = -std::numeric_limits<float>::infinity();

using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Words = std::uint32_t __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));

// The same bits as another type.
template <typename To, typename From>
inline void copy_bits(To& to, const From& from) {
  static_assert(sizeof to == sizeof from);
  std::memcpy(&to, &from, sizeof to);
}

// The next lanes of a row; beyond its end there is nothing, which is the lowest number.
inline void load(Floats& to, const float* from, std::size_t left) {
  if (left >= kLanes) {
    std::memcpy(&to, from, sizeof to);
    return;
  }
  for (std::size_t lane = 0; lane < kLanes; ++lane) to[lane] = lane < left ? from[lane] : kLowest;
}

// Whether a comparison holds in any lane.
template <typename Mask>
inline bool any(const Mask& lanes) {
  std::uint64_t words[sizeof lanes / sizeof(std::uint64_t)];
  std::memcpy(words, &lanes, sizeof lanes);
  std::uint64_t all = 0;
  for (std::uint64_t word : words) all |= word;
  return all != 0;
}

float largest_value(const float* logits, std::size_t count) {
  Floats best = Floats{} + kLowest;
  auto wrong = best != best;
  for (std::size_t i = 0; i < count; i += kLanes) {
    Floats x;
    load(x, logits + i, count - i);
    best = x > best ? x : best;
    wrong |= x != x;
  }
  if (any(wrong)) throw Failed("the model's logits are not numbers (NaN)");
  float found = kLowest;
  for (std::size_t lane = 0; lane < kLanes; ++lane) found = std::max(found, best[lane]);
  return found;
}

// The first place from `i` on, in steps of kLanes, where a lane holds `wanted`.
std::size_t lanes_with(const float* logits, std::size_t count, float wanted) {
  std::size_t i = 0;
  for (; i < count; i += kLanes) {
    Floats x;
    load(x, logits + i, count - i);
    if (any(x == wanted)) break;
  }
  return i;
}

// The first place from `i` on, in steps of kLanes, where a lane's total is above the bar.
std::size_t lanes_above(const float* logits, std::size_t i, std::size_t count, const Normaliser& row, float score,
                        float bar) {
  for (; i < count; i += kLanes) {
    Floats x;
    load(x, logits + i, count - i);
    if (any(((x - row.largest) - row.log_sum) + score > bar)) break;
  }
  return i;
}

// Sums exp(logit - top). Each term is 2^t = 2^n * 2^f with n = round(t) and a polynomial for 2^f, |f| <= 1/2, that is
// right to 2^-23 (a fit of the largest relative error). t itself is wrong in proportion to its size, that is where a
// term is too small to matter.
double sum_of_exponentials(const float* logits, std::size_t count, float top) {
  constexpr std::size_t kBlock = 64 * kLanes;  // summed in single precision; the blocks' sums in double
  constexpr float kRounding = 12582912.0F;     // 1.5 * 2^23: adding it leaves n in the low bits
  double total = 0;
  for (std::size_t block = 0; block < count; block += kBlock) {
    Floats sums = {};
    for (std::size_t i = block; i < std::min(block + kBlock, count); i += kLanes) {
      Floats x;
      load(x, logits + i, count - i);
      Floats t = (x - top) * 1.44269504F;
      t = t < -126.0F ? Floats{} - 126.0F : t;
      const Floats shifted = t + kRounding;
      const Floats f = t - (shifted - kRounding);
      Floats y = f * 0.001326472731F + 0.009671512991F;
      y = y * f + 0.05550733581F;
      y = y * f + 0.2402224243F;
      y = y * f + 0.6931470037F;
      y = y * f + 1.0F;
      Words n;
      Words bits;
      copy_bits(n, shifted);
      copy_bits(bits, y);
      bits += n << 23;  // adds n to the exponent
      copy_bits(y, bits);
      sums += y;
    }
    for (std::size_t lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sums[lane]);
  }
  return total;
}

}  // namespace

std::size_t largest(const float* logits, std::size_t count) {
  const float wanted = largest_value(logits, count);
  std::size_t i = lanes_with(logits, count, wanted);
  while (logits[i] != wanted) ++i;
  return i;
}

Normaliser normaliser(const float* logits, std::size_t count) {
  const float top = largest_value(logits, count);
  return {top, static_cast<float>(std::log(sum_of_exponentials(logits, count, top)))};
}

void Best::offer(Candidate candidate) {
  if (found_.size() == most_ && !(candidate.score > found_.back().score)) return;
  const auto worse = [&](const Candidate& other) { return other.score < candidate.score; };
  found_.insert(std::find_if(found_.begin(), found_.end(), worse), candidate);
  if (found_.size() > most_) found_.pop_back();
}

void Best::offer_row(const float* logits, std::size_t count, const Normaliser& row, float score, std::size_t first) {
  std::size_t i = 0;
  const auto offer_next = [&] {
    offer({((logits[i] - row.largest) - row.log_sum) + score, first + i});
    ++i;
  };
  while (i < count && found_.size() < most_) offer_next();
  while ((i = lanes_above(logits, i, count, row, score, found_.back().score)) < count) {
    const std::size_t stop = std::min(i + kLanes, count);
    while (i < stop) offer_next();
  }
}

}  // namespace tprune
