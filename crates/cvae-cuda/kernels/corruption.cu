// What the encoder is fed in training: marks of corrupted units, and permuted columns. The other corruptions are
// points of one line each.
#pragma once

// Streams of random words (cvae_core::Stream).
constexpr unsigned STREAM_CORRUPT = 6;
constexpr unsigned STREAM_PERMUTE = 7;

// 1 if the column's unit is chosen: if the upper 24 bits of its word lie below `threshold`.
DEVICE float mark(const Step &step, const unsigned *units, unsigned threshold, int row, int column) {
  return unit_word(step, STREAM_CORRUPT, row, units[column]) >> 8 < threshold ? 1.f : 0.f;
}

// The row of the batch from which a chosen unit takes its columns.
DEVICE int donor(const Step &step, const unsigned *units, int row, int column) {
  const unsigned word = unit_word(step, STREAM_PERMUTE, row, units[column]);
  return (int)(((unsigned long long)word * step.rows) >> 32);
}
