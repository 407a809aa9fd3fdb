// What the encoder is fed in training: marks of corrupted units, permuted columns and moved images. The other corruptions
// are points of one line each.
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

// The column of the row of `size` values that `column` shows after the row's move, -1 where it comes from outside. `shift`:
// farthest move, pixels of an image row, values of a pixel.
DEVICE int moved(const Step &step, const unsigned *shift, int size, int row, int column) {
  const int distance = shift[0], width = shift[1], channels = shift[2], line = width * channels;
  const int side = 2 * distance + 1, moves = side * side - 1;
  const unsigned word = unit_word(step, STREAM_PERMUTE, row, 0);
  int place = (int)(((unsigned long long)word * moves) >> 32);
  place += place >= moves / 2; // the middle of the square is no move
  const int y = column / line - (place / side - distance);
  const int x = column % line / channels - (place % side - distance);
  return y < 0 || x < 0 || y >= size / line || x >= width ? -1 : y * line + x * channels + column % channels;
}
