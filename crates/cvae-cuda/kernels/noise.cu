// Philox4x32-10 and normal variates, equal bit for bit to cvae_core::rng (which names the sources).
#pragma once

struct Words {
  unsigned w[4];
};

// One block of Philox4x32-10: counter (c0, c1, c2, c3), 64-bit key.
DEVICE Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned long long key) {
  unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    const unsigned n0 = (unsigned)(p1 >> 32) ^ c1 ^ k0, n2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
    c0 = n0;
    c1 = (unsigned)p1;
    c2 = n2;
    c3 = (unsigned)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Words{{c0, c1, c2, c3}};
}

// p·x + c, rounded after each operation.
DEVICE float exact_step(float p, float x, float c) { return exact_add(exact_mul(p, x), c); }

// Natural logarithm of a normal u in (0, 1].
DEVICE float exact_ln(float u) {
  const unsigned bits = float_bits(u);
  int exponent = (int)(bits >> 23) - 126;
  float m = bits_float((bits & 0x007fffffu) | 0x3f000000u);
  if (m < 0.707106781186547524400844362104849039f) {
    exponent -= 1;
    m = exact_add(m, m);
  }
  const float x = exact_add(m, -1.f);
  const float z = exact_mul(x, x);
  float p = 7.0376836e-2f;
  p = exact_step(p, x, -1.151461e-1f);
  p = exact_step(p, x, 1.1676999e-1f);
  p = exact_step(p, x, -1.2420141e-1f);
  p = exact_step(p, x, 1.4249323e-1f);
  p = exact_step(p, x, -1.6668058e-1f);
  p = exact_step(p, x, 2.0000715e-1f);
  p = exact_step(p, x, -2.4999994e-1f);
  p = exact_step(p, x, 3.333333e-1f);
  const float e = (float)exponent;
  float y = exact_mul(exact_mul(p, x), z);
  y = exact_add(y, -exact_mul(2.1219444e-4f, e));
  y = exact_add(y, -exact_mul(0.5f, z));
  return exact_add(exact_add(x, y), exact_mul(0.6933594f, e));
}

// One of the two normal variates of (radius, angle): the first, or the second if `second`.
DEVICE float normal(unsigned radius, unsigned angle, bool second) {
  const float u = exact_mul(exact_add((float)(radius >> 9), 0.5f), 1.f / 8388608.f);
  const float r = exact_sqrt(exact_mul(-2.f, exact_ln(u)));
  const float position = exact_add(exact_mul((float)((angle << 2) >> 8), 1.f / 16777216.f), -0.5f);
  const float t = exact_mul(position, 1.57079632679489661923132169163975144f);
  const float z = exact_mul(t, t);
  float sine = exact_step(-1.9515296e-4f, z, 8.332161e-3f);
  sine = exact_add(exact_mul(sine, z), -1.6666655e-1f);
  sine = exact_add(exact_mul(exact_mul(sine, z), t), t);
  float cosine = exact_step(2.4433157e-5f, z, -1.3887316e-3f);
  cosine = exact_step(cosine, z, 4.1666646e-2f);
  cosine = exact_mul(exact_mul(cosine, z), z);
  cosine = exact_add(exact_add(cosine, -exact_mul(0.5f, z)), 1.f);
  float x, y;
  switch (angle >> 30) {
  case 0: x = cosine, y = sine; break;
  case 1: x = -sine, y = cosine; break;
  case 2: x = -cosine, y = -sine; break;
  default: x = sine, y = -cosine;
  }
  return exact_mul(r, second ? y : x);
}

// Block `block` of the random words of a batch row.
DEVICE Words row_words(const Step &step, unsigned stream, int row, unsigned block) {
  const unsigned id = step.ids ? step.ids[row] : step.first_row + (unsigned)row;
  return philox(block, id, step.epoch, stream, step.seed);
}

// Word `index mod 4` of a block.
DEVICE unsigned word_of(const Words &words, unsigned index) {
  return index & 2u ? (index & 1u ? words.w[3] : words.w[2]) : (index & 1u ? words.w[1] : words.w[0]);
}

// The random word of unit `unit` of a batch row: word `unit mod 4` of block `unit / 4`.
DEVICE unsigned unit_word(const Step &step, unsigned stream, int row, unsigned unit) {
  return word_of(row_words(step, stream, row, unit / 4u), unit);
}

// The random sign of one element of a batch row: −1 if its word's highest bit is set.
DEVICE float random_sign(const Step &step, unsigned stream, int row, int column) {
  return unit_word(step, stream, row, (unsigned)column) >> 31 ? -1.f : 1.f;
}

// The noise of one element of a batch row: element `column` comes from block `column / 4` of the row.
DEVICE float noise(const Step &step, unsigned stream, int row, int column) {
  const Words words = row_words(step, stream, row, (unsigned)column / 4u);
  const bool upper = column & 2;
  return normal(words.w[upper ? 2 : 0], words.w[upper ? 3 : 1], column & 1);
}
