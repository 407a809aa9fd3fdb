// What the host asks of the kernels: tasks, and the values that change with the step.
//
// The structures mirror crates/cvae-cuda/src/task.rs field by field. Matrices are row-major with a leading
// dimension that is a multiple of 4 floats, so that every row starts at a multiple of 16 bytes; the elements
// between a row's width and its leading dimension are never read as data.
#pragma once

enum TaskKind : unsigned {
  LINEAR = 0,         // output[batch, out]   = input[batch, in] · weight[out, in]ᵀ
  GRAD_INPUT = 1,     // output[batch, in]    = grad[batch, out] · weight[out, in]
  GRAD_WEIGHT = 2,    // output[out, in]      = Σ_pairs grad[batch, out]ᵀ · input[batch, in]
  GRAD_BIAS = 3,      // output[1, out]       = Σ_rows grad[batch, out]
  POINTWISE = 4,      // output[rows, columns]: the points alone
  GATHER = 5,         // output[batch, width] = rows of the step's data as floats
  SQUARED_NORM = 6,   // partials[tile]       = Σ a² over the tile's share of a flat array
  FINISH_STEP = 7,    // adds the step's loss terms to the accumulator
  SIGMA_SLOPE = 8,    // output[1] = 1/(rows·(M + floor)): the slope of a learnt variance; the loss
  KL_SLOPES = 9,      // output[1, latent] = slopes of the bounded divergence; the loss
  DISCREPANCY = 10,   // output[batch, latent] = first + the gradient of MMD² between codes and prior; the loss
  SPECTRAL = 11,      // store = 1/σ, σ being the largest singular value of b[depth, columns]; second: the left
                      // singular vector, third: the right one
  SPECTRAL_GRAD = 12, // output[batch, columns] = −first[0]·(Σ a ⊙ b)·second, row by row; depth: width of a and b
};

// Shape of a matrix product's output tiles.
enum TileShape : unsigned {
  SMALL = 0,  // 16×16, the depth split over the warps: few rows, latency counts
  LARGE = 1,  // 64×64, one block of it per warp: many rows, throughput counts
};

// One elementwise operation on the running value `v` of an output element. `first`, `second` and `third` are
// arrays with the output's shape, unless said otherwise.
enum PointOp : unsigned {
  LOAD = 0,                 // v = first
  NOISE = 1,                // v = standard normal noise of the row (variant: stream)
  ADD_BIAS = 2,             // v += first[column]
  ACTIVATE = 3,             // v = act(v)
  ACTIVATE_GRAD = 4,        // v *= act'(·), first: saved output or input
  RECONSTRUCTION_GRAD = 5,  // first: target, second: weights or null; adds the loss, v = ∂loss/∂v
  COLLAPSED_PRIOR = 6,      // first: code; adds the loss, v += scale·code/rows
  KL_MEAN = 7,              // first: mean; adds the loss, v += scale·mean/rows. With second, slopes per column:
                            // v += second[column]·mean/rows, and no loss
  KL_LOGVAR = 8,            // first: log-variance, second as above; adds the loss, v += its gradient
  REPARAMETERIZE = 9,       // v (noise) = first (mean) + e^(second/2)·v
  REPARAMETERIZE_GRAD = 10, // v (gradient) *= second (noise) · ½e^(first/2)
  ADD_SCALED = 11,          // v = scale·v + other·first
  UPDATE = 12,              // v is a gradient; first: parameters, second and third: moments, all updated
  KEEP = 13,                // v, to be stored
  MASK = 14,                // v = 1 if the column's unit is chosen (variant: threshold; third: units), else 0
  ERASE = 15,               // v (mark) = first where v is 0, else 0
  PERMUTE = 16,             // v (mark) = first where v is 0, else first of another row (third: units)
  OBSERVE = 17,             // v = 0 if v is NaN
  OBSERVED = 18,            // v = 0 if v is NaN, else 1
  MULTIPLY = 19,            // v *= first
  TOP_K = 20,               // v = 0 unless it is one of its row's `variant` largest; first: the rows
  TOP_K_GRAD = 21,          // v = 0 where first is 0
  CODE_L1 = 22,             // first: code; adds the loss, v += scale·sign(code)/rows
  SIGNS = 23,               // v = a random sign (variant: stream)
  UNIT_VECTOR = 24,         // v = 1 in column `variant`, else 0
  JACOBIAN_NORM = 25,       // adds v² to the loss, v *= 2·scale/rows
  ACTIVATE_GRAD_GRAD = 26,  // v += act''(first)·second·third, first as in ACTIVATE_GRAD
  SQUARED_ERROR = 27,       // first: target, second: weights or null; adds the weighted square of v − first
  SIGMA_GRAD = 28,          // first: target, second: weights or null; v = (v − first)·weight·third[0]
  MIXED_GRAD = 29,          // as RECONSTRUCTION_GRAD by groups of columns (third); task.a: the predictions
  MIXED_OUTPUT = 30,        // v = from logits to the row's values (third: groups); task.a: the logits
  SCALE = 31,               // v *= first[0]
  SHIFT = 32,               // v (mark) = first where v is 0, else first of a moved image (third: distance, width, channels)
};

struct Point {
  unsigned op;       // PointOp
  unsigned variant;  // activation, reconstruction, stream, update rule, or what the operation says
  float scale;
  float other;
  float *first;
  float *second;
  float *third;
  float *store;      // where v goes afterwards, or null
};

// What a column of mixed rows belongs to: an entry of the table of MIXED_GRAD and MIXED_OUTPUT.
struct ColumnGroup {
  unsigned kind;   // ColumnKind
  unsigned first;  // columns of the group
  unsigned width;
  float weight;
};

// The operands of a further product of GRAD_WEIGHT, with the leading dimensions of the first.
struct Pair {
  const float *a;
  const float *b;
};

constexpr int MAX_POINTS = 6;

struct Task {
  unsigned kind;     // TaskKind
  unsigned shape;    // TileShape
  int rows;          // rows of the output; 0 for the batch's
  int columns;       // columns of the output
  int depth;         // length of the sums; 0 for the batch's rows
  int lda;           // leading dimensions
  int ldb;
  int ldc;
  const float *a;    // operands of a product, or the flat array of a norm
  const float *b;
  const Task *tasks; // FINISH_STEP: the program's tasks; SIGMA_SLOPE: the one whose partials are the squares
  const Pair *pairs; // GRAD_WEIGHT: further products to add
  double *partials;  // one loss sum per tile, or null
  const double *clip_partials;  // squared norms of the gradients, or null
  double weight;     // factor of the partials in the loss
  double clip_norm;  // largest norm of the gradients
  double bound;      // KL_SLOPES: capacity or floor; SIGMA_SLOPE: floor
  unsigned count;    // FINISH_STEP: tasks; with clip_partials: their number; SPECTRAL: iterations
  unsigned term;     // term of the loss that the partials belong to
  unsigned per_row;  // whether that term is divided by the batch's rows
  unsigned points;
  unsigned pair_count;
  unsigned variant;  // KL_SLOPES: KlBound; SPECTRAL: index of the weight
  Point point[MAX_POINTS];
};

// The scalars of one update.
struct UpdateScalars {
  float beta1;  // momentum, for gradient descent
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float eps;
  float step_size;
  float inv_sqrt_correction;
  float keep;
};

// What changes from step to step.
struct Step {
  const void *data;       // rows to gather, without padding
  const unsigned *order;  // index of each batch row in `data`, or null: row r is row r
  const unsigned *ids;    // noise position of each batch row, or null: first_row + r
  unsigned long long seed;
  unsigned long long number;  // counted from 1
  unsigned rows;
  unsigned first_row;
  unsigned epoch;
  unsigned bytes;         // whether `data` holds bytes, each standing for byte·scale
  float scale;
  float inv_rows;
  UpdateScalars update;
};

constexpr int TERMS = 4;

// The host's view of the structures, checked there as well.
static_assert(sizeof(Point) == 48 && sizeof(Task) == 128 + MAX_POINTS * 48 && sizeof(Step) == 96, "layout");

// The accumulator that `losses` drains.
struct LossState {
  unsigned long long steps;
  unsigned long long rows;
  double sums[TERMS];
  double last[TERMS];
  unsigned long long bad_step;  // first step with a non-finite term, or 0
  unsigned long long bad_term;
};

// Tasks that depend on each other's outputs not at all.
struct Phase {
  unsigned first;
  unsigned count;
};

// Elements of one tile of POINTWISE and GATHER.
constexpr int POINTWISE_TILE = 1024;
// Columns of one tile of GRAD_BIAS.
constexpr int BIAS_TILE = 32;
// Most tiles of SQUARED_NORM.
constexpr int NORM_TILES = 256;

// Elements of one tile of SQUARED_NORM.
DEVICE int norm_tile(int elements) {
  const int share = (elements + NORM_TILES - 1) / NORM_TILES;
  return share < 4096 ? 4096 : share;
}

DEVICE int divide_up(int a, int b) { return (a + b - 1) / b; }

DEVICE int output_rows(const Task &task, int batch) { return task.rows ? task.rows : batch; }

DEVICE int tile_count(const Task &task, int batch) {
  const int rows = output_rows(task, batch);
  switch (task.kind) {
  case LINEAR:
  case GRAD_INPUT:
  case GRAD_WEIGHT: {
    const int side = task.shape == LARGE ? 64 : 16;
    return divide_up(rows, side) * divide_up(task.columns, side);
  }
  case GRAD_BIAS: return divide_up(task.columns, BIAS_TILE);
  case POINTWISE:
  case GATHER: return divide_up(rows * task.ldc, POINTWISE_TILE);
  case SQUARED_NORM: return divide_up(task.columns, norm_tile(task.columns));
  case DISCREPANCY:
  case SPECTRAL_GRAD: return rows;
  default: return 1;
  }
}
