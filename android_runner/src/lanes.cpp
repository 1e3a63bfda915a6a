// The compilers' generic vectors, of as many numbers as the instructions take: NEON and SSE 4, AVX2 8, AVX-512 16. Sums
// are kept in 16 places whatever the width, so that every machine adds in the same order. This file alone may be
// compiled to fused multiply-adds, which round once where others round twice.
#include "lanes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <numeric>

namespace tprune {
namespace {

#define TPRUNE_INLINE \
  __attribute__((always_inline)) inline  // so that it is compiled for the instructions of its caller

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr std::size_t kSums = 16;

template <std::size_t kWidth>
struct Vector {
  // typedef: GCC forgets the attribute in a template's `using`
  typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));
  typedef std::uint32_t Words __attribute__((vector_size(kWidth * sizeof(std::uint32_t))));
  typedef float Half __attribute__((vector_size(kWidth / 2 * sizeof(float))));
  typedef double Doubles __attribute__((vector_size(kWidth / 2 * sizeof(double))));
};

// The same bits as another type. Vectors are never passed by value: that would depend on the instructions.
template <typename To, typename From>
TPRUNE_INLINE void copy_bits(To& to, const From& from) {
  static_assert(sizeof to == sizeof from);
  std::memcpy(&to, &from, sizeof to);
}

// The next group of a row; beyond the row's end there is nothing, which is the lowest number.
TPRUNE_INLINE const float* group_at(const float* from, std::size_t left, float* room) {
  if (left >= Lanes::kGroup) return from;
  std::memcpy(room, from, left * sizeof *from);
  std::fill(room + left, room + Lanes::kGroup, kLowest);
  return room;
}

// The largest number of a vector.
template <std::size_t kWidth>
TPRUNE_INLINE float highest(const typename Vector<kWidth>::Floats& numbers) {
  if constexpr (kWidth > 4) {
    typename Vector<kWidth / 2>::Floats halves[2];
    copy_bits(halves, numbers);
    halves[0] = halves[0] > halves[1] ? halves[0] : halves[1];
    return highest<kWidth / 2>(halves[0]);
  } else {
    const float low = numbers[0] > numbers[1] ? numbers[0] : numbers[1];
    const float high = numbers[2] > numbers[3] ? numbers[2] : numbers[3];
    return low > high ? low : high;
  }
}

// The largest of a group; `wrong` is no longer zero when one of them is not a number.
template <std::size_t kWidth>
TPRUNE_INLINE float largest_of(const float* group, typename Vector<kWidth>::Words& wrong) {
  using Floats = typename Vector<kWidth>::Floats;
  Floats best;
  std::memcpy(&best, group, sizeof best);
  for (std::size_t i = 0; i < Lanes::kGroup; i += kWidth) {
    Floats x;
    std::memcpy(&x, group + i, sizeof x);
    best = x > best ? x : best;
    typename Vector<kWidth>::Words mask;
    copy_bits(mask, x != x);
    wrong |= mask;
  }
  return highest<kWidth>(best);
}

template <std::size_t kWidth>
TPRUNE_INLINE float or_nan(float value, const typename Vector<kWidth>::Words& wrong) {
  for (std::size_t lane = 0; lane < kWidth; ++lane) {
    if (wrong[lane] != 0) return std::numeric_limits<float>::quiet_NaN();
  }
  return value;
}

template <std::size_t kWidth>
TPRUNE_INLINE Lanes::Peak peak(const float* logits, std::size_t count) {
  typename Vector<kWidth>::Words wrong = {};
  Lanes::Peak peak{kLowest, 0};
  float room[Lanes::kGroup];
  for (std::size_t i = 0; i < count; i += Lanes::kGroup) {
    const float value = largest_of<kWidth>(group_at(logits + i, count - i, room), wrong);
    if (value > peak.value) peak = {value, i};
  }
  peak.value = or_nan<kWidth>(peak.value, wrong);
  return peak;
}

// Each term is 2^t = 2^n * 2^f with n = round(t) and a polynomial for 2^f, |f| <= 1/2, that is right to 2^-23 (a fit of
// the largest relative error). t itself is wrong in proportion to its size, that is where a term is too small to
// matter.
template <std::size_t kWidth>
TPRUNE_INLINE void add_exponentials(const float* group, float top, typename Vector<kWidth>::Floats* sums) {
  using Floats = typename Vector<kWidth>::Floats;
  using Words = typename Vector<kWidth>::Words;
  constexpr float kRounding = 12582912.0F;  // 1.5 * 2^23: adding it leaves n in the low bits
  for (std::size_t i = 0; i < Lanes::kGroup; i += kWidth) {
    Floats x;
    std::memcpy(&x, group + i, sizeof x);
    Floats t = (x - top) * 1.44269504F;
    const Floats least = Floats{} - 126.0F;
    t = t < least ? least : t;
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
    sums[i % kSums / kWidth] += y;
  }
}

// The largest so far stands for the largest; a larger one scales down what was added before.
template <std::size_t kWidth>
TPRUNE_INLINE Lanes::Sum sum(const float* logits, std::size_t count, float* largest) {
  using Floats = typename Vector<kWidth>::Floats;
  using Doubles = typename Vector<kWidth>::Doubles;
  typename Vector<kWidth>::Words wrong = {};
  float top = std::numeric_limits<float>::lowest();
  Doubles totals[2 * kSums / kWidth] = {};
  float room[Lanes::kGroup];
  for (std::size_t i = 0; i < count; i += Lanes::kGroup) {
    const float* group = group_at(logits + i, count - i, room);
    const float value = largest_of<kWidth>(group, wrong);
    *largest++ = value;
    if (value > top) {
      const double scale = std::exp(static_cast<double>(top) - static_cast<double>(value));
      for (Doubles& total : totals) total *= scale;
      top = value;
    }
    Floats sums[kSums / kWidth] = {};  // of four terms each, so that small ones are not lost beside the largest
    add_exponentials<kWidth>(group, top, sums);
    typename Vector<kWidth>::Half halves[2 * kSums / kWidth];
    copy_bits(halves, sums);
    for (std::size_t k = 0; k < 2 * kSums / kWidth; ++k) totals[k] += __builtin_convertvector(halves[k], Doubles);
  }
  double values[kSums];
  copy_bits(values, totals);
  return {or_nan<kWidth>(top, wrong), std::accumulate(std::begin(values), std::end(values), 0.0)};
}

// Both for one width; `instructions` is an attribute, or nothing.
#define TPRUNE_LANES(name, width, instructions)                                                \
  instructions Lanes::Peak peak_##name(const float* logits, std::size_t count) {               \
    return peak<width>(logits, count);                                                         \
  }                                                                                            \
  instructions Lanes::Sum sum_##name(const float* logits, std::size_t count, float* largest) { \
    return sum<width>(logits, count, largest);                                                 \
  }                                                                                            \
  constexpr Lanes kLanes_##name = {peak_##name, sum_##name};

TPRUNE_LANES(plain, 4, )
#ifdef __x86_64__
TPRUNE_LANES(avx2, 8, __attribute__((target("avx2,fma"))))
TPRUNE_LANES(avx512, 16, __attribute__((target("avx512f"))))
#endif

const Lanes& choose() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f")) return kLanes_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kLanes_avx2;
#endif
  return kLanes_plain;
}

}  // namespace

const Lanes& lanes() {
  static const Lanes& chosen = choose();
  return chosen;
}

}  // namespace tprune
