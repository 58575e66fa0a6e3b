// log, exp, sine and cosine from IEEE add, multiply and divide only, so that initial parameters and rotary
// tables have the same bits on every machine, whatever its libm. docs/numerics.md, section 3. Errors are a
// few units in the last place of binary64.
#pragma once

namespace accrue {

// Requires a finite x > 0 that is not subnormal.
double PortableLog(double x);
// Requires |x| < 700.
double PortableExp(double x);

struct SineCosine {
  double sine = 0;
  double cosine = 0;
};
// Of 2 pi turns, for |turns| < 2^52.
SineCosine PortableSineCosine(double turns);

}  // namespace accrue
