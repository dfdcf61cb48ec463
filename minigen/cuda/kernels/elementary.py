"""exp, expm1, log1p, log, tanh, and the sine and cosine of a fraction of a turn, as polynomials in float32.

The formulas and coefficients of ``csrc/math/elementary.hpp``, which states their errors (2 ulp). Triton's own ``exp``
and ``log`` are the GPU's fast approximations: ``log`` loses all relative accuracy near 1, where Box and Muller's method
and softplus need it, and there is no ``expm1`` or ``log1p``. These are plain arithmetic, so that the interpreter
computes what the GPU does. NaN gives NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl

ROUNDER: tl.constexpr = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it rounds to the nearest integer
ROUNDER_BITS: tl.constexpr = tl.constexpr(0x4B400000)
LOG2_E: tl.constexpr = tl.constexpr(1.44269504)
LN2_HIGH: tl.constexpr = tl.constexpr(0.693359375)  # few bits, so that n * LN2_HIGH is exact
LN2_LOW: tl.constexpr = tl.constexpr(-2.12194440e-4)
SQRT_HALF_BITS: tl.constexpr = tl.constexpr(0x3F3504F3)


@triton.jit
def bits(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def from_bits(n):
    return n.to(tl.float32, bitcast=True)


@triton.jit
def split_exponent(x):
    """n and expm1(r), where x = n ln 2 + r and |r| <= ln(2) / 2, for |x| < 2^20."""
    shifted = x * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    q = 1.394759747e-03 * r + 8.367246948e-03
    q = q * r + 4.166626558e-02
    q = q * r + 1.666653752e-01
    q = q * r + 0.5
    return bits(shifted) - ROUNDER_BITS, r + (r * r) * q


@triton.jit
def power_of_two(n):
    """2^n for -127 < n < 128; n = -127 gives 0."""
    return from_bits((n + 127) << 23)


@triton.jit
def exp(x):
    """e^x, denormal results included."""
    low = tl.where(x < -104.0, -104.0, x)  # e^-104 rounds to 0, e^89 to infinity
    n, fraction = split_exponent(tl.where(low > 89.0, 89.0, low))
    half = n >> 1  # 2^n itself may not fit a float
    return (1.0 + fraction) * power_of_two(half) * power_of_two(n - half)


@triton.jit
def exp_negative(x):
    """e^x for x <= 0, results below 2^-126 flushed to 0."""
    n, fraction = split_exponent(tl.where(x < -88.0, -88.0, x))
    return (1.0 + fraction) * power_of_two(n)


@triton.jit
def expm1(x):
    """e^x - 1 = 2^n expm1(r) + (2^n - 1), at half size, because 2^128 does not fit a float."""
    low = tl.where(x < -87.0, -87.0, x)
    n, fraction = split_exponent(tl.where(low > 89.0, 89.0, low))
    half = power_of_two(n - 1)
    halved = half * fraction + (half - 0.5)
    return halved + halved


@triton.jit
def log1p_unit(e):
    """log(1 + e) for 0 <= e <= 1, as 2 atanh(s) with s = e / (2 + e)."""
    s = e / (2.0 + e)
    w = s * s
    q = 2.430084646e-01 * w + 2.142768353e-01
    q = q * w + 2.861688137e-01
    q = q * w + 3.999887705e-01
    q = q * w + 6.666667461e-01
    return s * (2.0 + w * q)


@triton.jit
def log(x):
    """log x for positive normal x = 2^n (1 + f), the mantissa 1 + f in [sqrt(1/2), sqrt 2)."""
    above = bits(x) - SQRT_HALF_BITS
    n = (above >> 23).to(tl.float32)
    f = from_bits((above & 0x007FFFFF) + SQRT_HALF_BITS) - 1.0
    q = -7.859612256e-02 * f + 1.288164109e-01
    q = q * f - 1.312875152e-01
    q = q * f + 1.418119222e-01
    q = q * f - 1.662455499e-01
    q = q * f + 2.000228614e-01
    q = q * f - 2.500081062e-01
    q = q * f + 3.333331645e-01
    return n * LN2_HIGH + (f + (n * LN2_LOW + (f * f) * (f * q - 0.5)))


@triton.jit
def tanh(x):
    """-t / (2 + t) with t = expm1(-2 |x|), and the sign of x."""
    magnitude = tl.abs(x)
    t = expm1(-2.0 * tl.where(magnitude > 10.0, 10.0, magnitude))  # tanh 10 rounds to 1
    y = -t / (2.0 + t)
    return tl.where(x < 0.0, -y, y)


@triton.jit
def sine_cosine_of_turn(u):
    """sin and cos of 2 pi u for 0 <= u < 1; absolute error 1e-7."""
    shifted = 4.0 * u + ROUNDER
    quarter = bits(shifted)
    r = u - 0.25 * (shifted - ROUNDER)  # exact, |r| <= 1/8
    w = r * r
    s = 4.147294998e01 * w - 7.669786835e01
    s = s * w + 8.160520172e01
    s = s * w - 4.134170151e01
    s = (s * w + 6.283185482e00) * r
    c = 5.922040558e01 * w - 8.544285583e01
    c = c * w + 6.493931580e01
    c = c * w - 1.973920822e01
    c = c * w + 1.0
    swapped = (quarter & 1) != 0
    sine = tl.where(swapped, c, s)
    cosine = tl.where(swapped, s, c)
    # Quarter turns 2, 3 negate the sine; 1, 2 the cosine.
    return tl.where((quarter & 2) != 0, -sine, sine), tl.where(((quarter + 1) & 2) != 0, -cosine, cosine)
