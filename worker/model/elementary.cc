#include "worker/model/elementary.h"

#include <bit>
#include <cmath>
#include <cstdint>

namespace accrue {
namespace {

constexpr double kLog2 = 0.693147180559945309417232121458;
constexpr double kHalfPi = 1.57079632679489661923132169164;
constexpr double kSqrt2 = 1.41421356237309504880168872421;

// 2^n for a normal result.
double PowerOfTwo(int64_t n) { return std::bit_cast<double>(static_cast<uint64_t>(n + 1023) << 52); }

// The nearest whole number, halves away from zero; IEEE operations and a conversion only.
int64_t Nearest(double x) { return static_cast<int64_t>(x < 0 ? x - 0.5 : x + 0.5); }

}  // namespace

double PortableLog(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000);
  if (mantissa > kSqrt2) {
    mantissa *= 0.5;
    exponent += 1;
  }
  // log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172: fourteen terms leave less than 2^-60.
  const double s = (mantissa - 1) / (mantissa + 1);
  const double square = s * s;
  double sum = 0;
  for (int k = 13; k >= 0; --k) sum = sum * square + 1.0 / (2 * k + 1);
  return static_cast<double>(exponent) * kLog2 + 2 * s * sum;
}

double PortableExp(double x) {
  const int64_t n = Nearest(x / kLog2);
  const double r = x - static_cast<double>(n) * kLog2;  // |r| < 0.35
  double sum = 1;
  for (int k = 18; k >= 1; --k) sum = 1 + sum * r / k;
  return sum * PowerOfTwo(n);
}

SineCosine PortableSineCosine(double turns) {
  const double quarters = 4 * turns;
  const int64_t quadrant = Nearest(quarters);
  const double x = (quarters - static_cast<double>(quadrant)) * kHalfPi;  // |x| <= pi / 4
  const double square = x * x;
  // Taylor: the next terms, x^21/21! and x^20/20!, are below 2^-68.
  double sine = 1, cosine = 1;
  for (int k = 9; k >= 1; --k) {
    sine = 1 - sine * square / ((2 * k) * (2 * k + 1));
    cosine = 1 - cosine * square / ((2 * k - 1) * (2 * k));
  }
  sine *= x;
  switch (quadrant & 3) {
    case 0:
      return {.sine = sine, .cosine = cosine};
    case 1:
      return {.sine = cosine, .cosine = -sine};
    case 2:
      return {.sine = -sine, .cosine = -cosine};
    default:
      return {.sine = -cosine, .cosine = sine};
  }
}

}  // namespace accrue
