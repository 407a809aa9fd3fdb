// Rows of numeric, binary and one-hot categorical columns.
#pragma once

enum ColumnKind : unsigned { NUMERIC = 0, BINARY, CATEGORICAL };

// The softmax of a group of logits: the largest, and Σ e^(u − largest).
struct Softmax {
  float largest;
  float sum;
};

DEVICE Softmax softmax(const float *logits, unsigned width) {
  Softmax result = {load(logits), 0.f};
  for (unsigned i = 1; i < width; ++i) result.largest = fmaxf(result.largest, load(logits + i));
  for (unsigned i = 0; i < width; ++i) result.sum += expf(load(logits + i) - result.largest);
  return result;
}

// One element of the reconstruction term of mixed columns: adds its share to `loss` and returns its derivative,
// before the division by the batch's rows. The arrays are those of the element's row; `weights` may be null. An
// element of a categorical group reads the group's logits, targets and weights.
DEVICE float mixed_grad(unsigned kind, float parameter, const ColumnGroup &group, int column, const float *predictions,
                        const float *targets, const float *weights, float &loss) {
  const float prediction = load(predictions + column), target = load(targets + column);
  float share = 0.f, slope;
  float weight = group.weight;
  if (group.kind == CATEGORICAL) {
    const Softmax shares = softmax(predictions + group.first, group.width);
    float total = 0.f;
    for (unsigned i = group.first; i < group.first + group.width; ++i) {
      total += load(targets + i);
      if (weights) weight *= load(weights + i);
    }
    const float logit = prediction - shares.largest;
    share = target * (logf(shares.sum) - logit);
    slope = total * (expf(logit) / shares.sum) - target;
  } else {
    if (weights) weight *= load(weights + column);
    slope = reconstruction(group.kind == BINARY ? BCE : kind, parameter, prediction, target, share);
  }
  loss += weight * share;
  return weight * slope;
}

// From the decoder's output to a row's value: numbers as they are, the sigmoid or the softmax of logits.
DEVICE float mixed_output(const ColumnGroup &group, int column, const float *logits) {
  const float logit = load(logits + column);
  if (group.kind == NUMERIC) return logit;
  if (group.kind == BINARY) return sigmoid(logit);
  const Softmax shares = softmax(logits + group.first, group.width);
  return expf(logit - shares.largest) / shares.sum;
}
