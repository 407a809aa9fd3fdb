//! cvae-candle
