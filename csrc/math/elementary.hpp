// exp, expm1, log1p, log, tanh and the sine and cosine of a fraction of a turn, as polynomials.
//
// Each reduces its argument to a short interval, where a polynomial of small degree is within float32's rounding (the
// coefficients minimise the largest relative error, Remez 1934), and puts the result together without a branch.
// Errors quoted are the largest over a dense sweep against double (tests/test_native.py). NaN gives NaN.
#pragma once

#include "portable.hpp"

namespace minigen::math {

// Adding and taking away 1.5 * 2^23 rounds to the nearest integer, which then also stands in the low bits of the sum.
constexpr float rounder = 12582912.0f;
constexpr uint32_t rounder_bits = 0x4b400000u;

constexpr float log2_e = 1.44269504f;
constexpr float ln2_high = 0.693359375f;  // few bits, so that n * ln2_high is exact
constexpr float ln2_low = -2.12194440e-4f;

// x = n ln 2 + r with |r| <= ln(2) / 2, for |x| < 2^20; `fraction` is expm1(r).
struct Exponent {
  uint32_t n;  // two's complement
  float fraction;
};

MINIGEN_FN Exponent split_exponent(float x) {
  const float shifted = x * log2_e + rounder;
  const float n = shifted - rounder;
  const float r = (x - n * ln2_high) - n * ln2_low;
  float q = 1.394759747e-03f;
  q = q * r + 8.367246948e-03f;
  q = q * r + 4.166626558e-02f;
  q = q * r + 1.666653752e-01f;
  q = q * r + 5.000000000e-01f;
  return {to_bits(shifted) - rounder_bits, r + (r * r) * q};
}

// 2^n for -127 < n < 128; n = -127 gives 0.
MINIGEN_FN float power_of_two(uint32_t n) { return from_bits((n + 127u) << 23); }

// e^x, denormal results included; 2 ulp.
MINIGEN_FN float exp(float x) {
  const float low = x < -104.0f ? -104.0f : x;  // e^-104 rounds to 0, e^89 to infinity
  const Exponent e = split_exponent(low > 89.0f ? 89.0f : low);
  const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(e.n) >> 1);  // 2^n itself may not fit a float
  return (1.0f + e.fraction) * power_of_two(half) * power_of_two(e.n - half);
}

// e^x for x <= 0, results below 2^-126 flushed to 0; 1 ulp.
MINIGEN_FN float exp_negative(float x) {
  const Exponent e = split_exponent(x < -88.0f ? -88.0f : x);  // n = -127 there
  return (1.0f + e.fraction) * power_of_two(e.n);
}

// e^x - 1 from x = n ln 2 + r: 2^n expm1(r) + (2^n - 1), at half size, because 2^128 does not fit a float.
MINIGEN_FN float expm1_of(Exponent e) {
  const float half = power_of_two(e.n - 1u);
  const float halved = half * e.fraction + (half - 0.5f);
  return halved + halved;
}

// e^x - 1; 2 ulp.
MINIGEN_FN float expm1(float x) {
  const float low = x < -87.0f ? -87.0f : x;
  return expm1_of(split_exponent(low > 89.0f ? 89.0f : low));
}

// log(1 + e) for 0 <= e <= 1, as 2 atanh(u / 2) with u = 2 e / (2 + e); 2 ulp.
MINIGEN_FN float log1p_unit(float e) {
  const float u = e / (1.0f + 0.5f * e);
  const float w = u * u;
  float q = 1.186564769e-04f;
  q = q * w + 4.185094439e-04f;
  q = q * w + 2.235693857e-03f;
  q = q * w + 1.249964908e-02f;
  q = q * w + 8.333334326e-02f;
  return u + u * (w * q);
}

// log x for positive normal x; 2 ulp.
MINIGEN_FN float log(float x) {
  // The mantissa m in [sqrt(1/2), sqrt 2): subtracting the bits of sqrt(1/2) makes the exponent field round that way.
  const uint32_t above = to_bits(x) - 0x3f3504f3u;
  const float n = static_cast<float>(static_cast<int32_t>(above) >> 23);
  const float f = from_bits((above & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  float q = -7.859612256e-02f;
  q = q * f + 1.288164109e-01f;
  q = q * f - 1.312875152e-01f;
  q = q * f + 1.418119222e-01f;
  q = q * f - 1.662455499e-01f;
  q = q * f + 2.000228614e-01f;
  q = q * f - 2.500081062e-01f;
  q = q * f + 3.333331645e-01f;
  const float square = f * f;
  return n * ln2_high + (f + (n * ln2_low + square * (f * q - 0.5f)));
}

// A quotient whose denominator is in [1, 2], for those who have a faster division for that than `/`. NaN over NaN for
// NaN.
struct Fraction {
  float numerator, denominator;
};

// tanh x = -t / (2 + t) with t = expm1(-2 |x|), and the sign of x; 2 ulp.
//
// Not by expm1 above: t need not be accurate relative to e^(-2|x|), so the argument can be reduced in units of log2,
// -2 |x| log2(e) = n + r, in one step. t = 2^n (2^r - 1) + (2^n - 1).
MINIGEN_FN Fraction tanh_fraction(float x) {
  const float magnitude = absolute(x);
  const float clamped = magnitude > 10.0f ? 10.0f : magnitude;  // tanh 10 rounds to 1
  const float shifted = clamped * (-2.0f * log2_e) + rounder;
  const float r = clamped * (-2.0f * log2_e) - (shifted - rounder);
  float q = 1.540351223e-04f;
  q = q * r + 1.339074690e-03f;
  q = q * r + 9.618237615e-03f;
  q = q * r + 5.550357327e-02f;
  q = q * r + 2.402264923e-01f;
  q = q * r + 6.931471825e-01f;
  const float power = power_of_two(to_bits(shifted) - rounder_bits);
  const float t = power * (r * q) + (power - 1.0f);
  return {with_sign(t, x), 2.0f + t};
}

MINIGEN_FN float tanh(float x) {
  const Fraction f = tanh_fraction(x);
  return f.numerator / f.denominator;
}

// Sine and cosine of 2 pi u for 0 <= u < 1; absolute error 1e-7.
struct SineCosine {
  float sine, cosine;
};

MINIGEN_FN SineCosine sine_cosine_of_turn(float u) {
  const float shifted = 4.0f * u + rounder;
  const uint32_t quarter = to_bits(shifted);
  const float r = u - 0.25f * (shifted - rounder);  // exact, |r| <= 1/8
  const float w = r * r;
  float s = 4.147294998e+01f;
  s = s * w - 7.669786835e+01f;
  s = s * w + 8.160520172e+01f;
  s = s * w - 4.134170151e+01f;
  s = s * w + 6.283185482e+00f;
  s = s * r;
  float c = 5.922040558e+01f;
  c = c * w - 8.544285583e+01f;
  c = c * w + 6.493931580e+01f;
  c = c * w - 1.973920822e+01f;
  c = c * w + 1.0f;
  const bool swapped = (quarter & 1u) != 0;
  const float sine = swapped ? c : s;
  const float cosine = swapped ? s : c;
  // Quarter turns 2, 3 negate the sine; 1, 2 the cosine: bit 1 moved to the sign.
  return {from_bits(to_bits(sine) ^ ((quarter & 2u) << 30)),
          from_bits(to_bits(cosine) ^ (((quarter + 1u) & 2u) << 30))};
}

}  // namespace minigen::math
