// The arithmetic of a layer, for one instruction set. span.cpp includes this file once for every instruction set,
// after vectors.h and inside the same namespace.
//
// Winograd's F(4x4, 3x3) (arXiv 1509.09308): a tile of 4x4 output pixels comes from 6x6 input pixels d as
// A'[(G g G') * (B' d B)]A. The product * of 36 pairs of numbers becomes 36 matrix products over channels, which need a
// quarter of the multiply-adds of a direct convolution.
//
// The lanes of a vector are tiles next to each other. So a pixel of a vector is 4 pixels away from the pixel in the
// lane before, any number of channels is without padding, and transforms need no shuffles inside a tile.

// B' d for a column or a row d of 6 values.
INLINE void transform_input(const Vector d[6], Vector out[6]) {
  const Vector a = splat(kA), b = splat(kB), aa = splat(kA * kA), bb = splat(kB * kB);
  const Vector product = splat(kA * kA * kB * kB), sum = splat(kA * kA + kB * kB);
  out[0] = fma(product, d[0], fnma(sum, d[2], d[4]));
  Vector even = fnma(bb, d[2], d[4]), odd = fnma(bb, d[1], d[3]);
  out[1] = fma(a, odd, even);
  out[2] = fnma(a, odd, even);
  even = fnma(aa, d[2], d[4]), odd = fnma(aa, d[1], d[3]);
  out[3] = fma(b, odd, even);
  out[4] = fnma(b, odd, even);
  out[5] = fma(product, d[1], fnma(sum, d[3], d[5]));
}

// A' m for a column or a row m of 6 values.
INLINE void transform_output(const Vector m[6], Vector out[4]) {
  const Vector sum_a = add(m[1], m[2]), difference_a = sub(m[1], m[2]);
  const Vector sum_b = add(m[3], m[4]), difference_b = sub(m[3], m[4]);
  out[0] = add(add(m[0], sum_a), sum_b);
  out[1] = fma(splat(kB), difference_b, mul(splat(kA), difference_a));
  out[2] = fma(splat(kB * kB), sum_b, mul(splat(kA * kA), sum_a));
  out[3] = fma(splat(kB * kB * kB), difference_b, fma(splat(kA * kA * kA), difference_a, m[5]));
}

// 1 / (1 + exp(-v)), with a relative error of some 1e-7.
INLINE Vector sigmoid(Vector v) {
  // exp(x) = 2^n exp(r), with n whole and r within ln(2) / 2. Beyond 87, exp(x) or exp(-x) leaves the normal floats.
  Vector x = clamp(sub(splat(0.0f), v), splat(-87.0f), splat(87.0f));
  Vector n = nearest(mul(x, splat(1.44269504f)));
  Vector r = fnma(n, splat(0.693359375f), x);  // ln(2) in two parts, of which the first has 9 bits: n times it is exact
  r = fnma(n, splat(-2.12194440e-4f), r);
  // Polynomial of degree 5 with the least relative error, 9e-8.
  Vector p = fma(splat(8.29028365e-3f), r, splat(4.18980981e-2f));
  p = fma(p, r, splat(0.166676376f));
  p = fma(p, r, splat(0.499991483f));
  p = fma(p, r, splat(0.999999707f));
  p = fma(p, r, splat(1.0f));
  return div(splat(1.0f), add(splat(1.0f), times_power_of_two(p, n)));
}

// Ask for the pixels around a block that `transform_block` will read for a channel. The pixels lie in short pieces at
// equal distances, so the hardware fetches none ahead; the pixels of the block itself are one piece.
INLINE void prefetch_around(const float* const around[3][3], size_t ahead) {
  constexpr int kRow = 4 * kLanes, kLine = 64 / sizeof(float);
  for (int y = 0; y < kRows; y++) {
    __builtin_prefetch(around[1][0] + ahead + y * kRow + 3 * kLanes);
    __builtin_prefetch(around[1][2] + ahead + y * kRow);
  }
  for (int i = 0; i < kRow; i += kLine) {
    __builtin_prefetch(around[0][1] + ahead + (kRows - 1) * kRow + i);
    __builtin_prefetch(around[2][1] + ahead + i);
  }
}

// Transform a channel of a block, with the pixels around the block, into 36 vectors for each of the kTall tiles.
//
// around   the block in the middle, and the eight blocks around the block; all point at the same channel
// to       transformed value f of the tile t is at to[(f * step + t) * kLanes]
INLINE void transform_block(const float* const around[3][3], float* to, size_t step) {
  Vector rows[kRows + 2][6];  // transformed along x
#pragma GCC unroll 10
  for (int y = -1; y <= kRows; y++) {
    const float* const* blocks = around[y < 0 ? 0 : y < kRows ? 1 : 2];
    const int start = (y < 0 ? kRows - 1 : y < kRows ? y : 0) * 4 * kLanes;
    const float* row = blocks[1] + start;
    Vector d[6] = {Vector(), load(row), load(row + kLanes), load(row + 2 * kLanes), load(row + 3 * kLanes), Vector()};
    // The pixel to the left of a tile is the last one of the tile before, and the other way round.
    d[0] = from_before(load(blocks[0] + start + 3 * kLanes), d[4]);
    d[5] = from_after(d[1], load(blocks[2] + start));
    transform_input(d, rows[y + 1]);
  }
  for (int t = 0; t < kTall; t++) {
    for (int x = 0; x < 6; x++) {
      Vector column[6], out[6];
      for (int y = 0; y < 6; y++) column[y] = rows[4 * t + y][x];
      transform_input(column, out);
      for (int y = 0; y < 6; y++) store(to + ((y * 6 + x) * step + t) * kLanes, out[y]);
    }
  }
}

// A number of matrix products of kOutputs or fewer output channels, each for two vectors of tiles or pixels.
struct Product {
  int count;
  int inputs;
  const float* in;       // input k of product n is at in + n * in_next + k * in_step
  size_t in_step, in_next;
  const float* weights;  // of product n at weights + n * weights_next: the outputs of input 0, of input 1, ...
  size_t weights_next;
  float* out;            // output m of product n is at out + n * out_next + m * out_step
  size_t out_step, out_next;
  bool add;              // add to the values at `out`
};

template <int kCount>
void multiply(const Product& p) {
  for (int n = 0; n < p.count; n++) {
    const float* in = p.in + n * p.in_next;
    const float* weights = p.weights + n * p.weights_next;
    float* out = p.out + n * p.out_next;
    Vector sums[kCount][2];
    for (int m = 0; m < kCount; m++) {
      sums[m][0] = p.add ? load(out + m * p.out_step) : splat(0.0f);
      sums[m][1] = p.add ? load(out + m * p.out_step + kLanes) : splat(0.0f);
    }
    // The sums stay in registers only where the compiler unrolls the loops over them.
    for (int k = 0; k < p.inputs; k++) {
      const Vector first = load(in), second = load(in + kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < kCount; m++) {
        const Vector weight = splat(weights[m]);
        sums[m][0] = fma(weight, first, sums[m][0]);
        sums[m][1] = fma(weight, second, sums[m][1]);
      }
      in += p.in_step;
      weights += kCount;
    }
#pragma GCC unroll 16
    for (int m = 0; m < kCount; m++) {
      store(out + m * p.out_step, sums[m][0]);
      store(out + m * p.out_step + kLanes, sums[m][1]);
    }
  }
}

template <int... kCounts>
void multiply_any(const Product& p, int outputs, std::integer_sequence<int, kCounts...>) {
  static void (*const functions[])(const Product&) = {multiply<kCounts + 1>...};
  functions[outputs - 1](p);
}

INLINE void multiply(const Product& p, int outputs) {
  multiply_any(p, outputs, std::make_integer_sequence<int, kOutputs>());
}

// Transform 36 products of a tile back to 4x4 pixels, and apply what follows the convolution.
//
// from       product f is at from[f * step * kLanes]
// out        pixel (y, x) is at out[(4 * y + x) * kLanes]
// residual   input of the attention block, laid out as `out`
template <After kAfter>
INLINE void finish_tile(const float* from, size_t step, float bias, float* out, const float* residual) {
  Vector columns[4][6];  // transformed along y
  for (int x = 0; x < 6; x++) {
    Vector m[6], column[4];
    for (int y = 0; y < 6; y++) m[y] = load(from + (y * 6 + x) * step * kLanes);
    transform_output(m, column);
    for (int y = 0; y < 4; y++) columns[y][x] = column[y];
  }
  for (int y = 0; y < 4; y++) {
    Vector row[4];
    transform_output(columns[y], row);
    for (int x = 0; x < 4; x++) {
      const int at = (4 * y + x) * kLanes;
      Vector v = add(row[x], splat(bias));
      if (kAfter == After::kSilu) v = mul(v, sigmoid(v));
      if (kAfter == After::kGate) v = mul(add(v, load(residual + at)), sub(sigmoid(v), splat(0.5f)));
      if (kAfter == After::kSum) v = add(v, load(out + at));
      store(out + at, v);
    }
  }
}

// Apply `finish_tile` to all tiles of a block, for `outputs` channels.
template <After kAfter>
void finish_block(const float* products, int outputs, const float* bias, float* out, const float* residual) {
  for (int m = 0; m < outputs; m++) {
    for (int t = 0; t < kTall; t++) {
      const size_t at = (size_t(m) * kCell + t * 16) * kLanes;
      finish_tile<kAfter>(products + (m * kTall + t) * kLanes, outputs * kTall, bias[m], out + at,
                          kAfter == After::kGate ? residual + at : nullptr);
    }
  }
}

// Set pixels outside the picture to zero, as the next convolution pads the picture with zeros.
void clear_outside(const Run& run, int band, int chunk, float* block, int channels) {
  const int height = run.height - band * kRows, width = run.width - chunk * 4 * kLanes;
  if (height >= kRows && width >= 4 * kLanes) return;
  for (int i = 0; i < channels * kCell; i++) {
    const int y = i / 4 % kRows, x = i % 4;
    const int valid = y >= height ? 0 : (width - x + 3) / 4;  // tiles whose pixel is inside
    for (int t = std::max(0, valid); t < kLanes; t++) block[i * kLanes + t] = 0.0f;
  }
}

// Read a block of the picture, as the channels that the first layer takes.
template <typename Pixel>
void read_pixels(const Run& run, int band, int chunk, float* block) {
  const Picture& picture = run.picture;
  const float factor = float(1.0 / (double(picture.high) - double(picture.low)));
  for (int i = 0; i < 3 * kCell; i++) {
    const int channel = i / kCell, y = band * kRows + i / 4 % kRows;
    const float mean = run.network.mean[channel], range = run.network.range;
    const Pixel* row = static_cast<const Pixel*>(picture.in) + size_t(y) * run.width * picture.channels;
    for (int t = 0; t < kLanes; t++) {
      const int x = (chunk * kLanes + t) * 4 + i % 4;
      float value = 0.0f;
      if (y < run.height && x < run.width) {
        value = float(row[size_t(x) * picture.channels + (picture.channels == 3 ? channel : 0)]);
        value = ((value - picture.low) * factor - mean) * range;
      }
      block[i * kLanes + t] = value;
    }
  }
}

INLINE void put(float* to, size_t step, int count, Vector v) {
  alignas(64) float lanes[kLanes];
  store(lanes, v);
  for (int t = 0; t < count; t++) to[t * step] = lanes[t];
}

template <typename Whole>
INLINE void put(Whole* to, size_t step, int count, Vector v) {
  alignas(64) int32_t lanes[kLanes];
  store_rounded(lanes, v);
  for (int t = 0; t < count; t++) to[t * step] = Whole(lanes[t]);
}

// Shuffle the channels of the last layer into pixels of the result. Returns whether all values are finite.
//
// values   output channel o, pixel (y, x) of tile t at values[((o * kRows + y) * 4 + x) * kLanes + t]
template <typename Pixel>
bool write_pixels(const Run& run, int band, int chunk, const float* values) {
  const Picture& picture = run.picture;
  const int scale = run.network.scale, channels = picture.channels;
  const Vector low = splat(picture.low), span = splat(picture.high - picture.low);
  Vector not_finite = splat(0.0f);
  for (int y = 0; y < std::min(kRows, run.height - band * kRows); y++) {
    for (int i = 0; i < scale * 4 * scale; i++) {
      const int dy = i / (4 * scale), x = i / scale % 4, dx = i % scale;
      const int count = std::min(kLanes, (run.width - x + 3) / 4 - chunk * kLanes);
      const size_t hr_row = (size_t(band) * kRows + y) * scale + dy, left = (size_t(chunk) * kLanes * 4 + x) * scale + dx;
      Pixel* to = static_cast<Pixel*>(picture.out) + (hr_row * run.width * scale + left) * channels;
      Vector color[3];
      for (int c = 0; c < 3; c++) {
        color[c] = load(values + (((c * scale + dy) * scale + dx) * kRows + y) * size_t(4 * kLanes) + x * kLanes);
        not_finite = fma(color[c], splat(0.0f), not_finite);  // 0 times NaN or infinity is NaN
      }
      if (channels == 1) color[0] = div(add(add(color[0], color[1]), color[2]), splat(3.0f));
      for (int c = 0; c < channels; c++) {
        Vector v = color[c];
        if (picture.limited) v = add(mul(clamp(v, splat(0.0f), splat(1.0f)), span), low);
        put(to + c, size_t(4) * scale * channels, count, v);
      }
    }
  }
  alignas(64) float lanes[kLanes];
  store(lanes, not_finite);
  for (float lane : lanes)
    if (lane != 0.0f) return false;
  return true;
}

bool write_block(const Run& run, int band, int chunk, const float* values) {
  if (run.picture.type == PixelType::kUint8) return write_pixels<uint8_t>(run, band, chunk, values);
  if (run.picture.type == PixelType::kUint16) return write_pixels<uint16_t>(run, band, chunk, values);
  return write_pixels<float>(run, band, chunk, values);
}

// Stage 0: read a block of the picture into the first map.
void read_block(const Run& run, int band, int chunk) {
  float* block = run.block(0, band, chunk);
  if (run.picture.type == PixelType::kUint8) return read_pixels<uint8_t>(run, band, chunk, block);
  if (run.picture.type == PixelType::kUint16) return read_pixels<uint16_t>(run, band, chunk, block);
  return read_pixels<float>(run, band, chunk, block);
}

// conv_cat without the channels of conv_2, which the 3x3 kernel of the same layer holds: a 1x1 convolution of three
// maps, written to the output of the layer.
void convolve_pointwise(const Run& run, const Layer& layer, int band, int chunk, float* out, int first, int outputs) {
  const size_t cell = size_t(kCell) * kLanes;
  const int channels = run.network.channels;
  for (size_t s = 0; s < layer.sums.size(); s++) {
    const float* weights = layer.pointwise.data() + (s * channels) * channels + size_t(first) * channels;
    multiply({kCell / 2, channels, run.block(layer.sums[s], band, chunk), cell, 2 * kLanes, weights, 0, out, cell,
              2 * kLanes, s > 0}, outputs);
  }
}

// Compute a block of a layer. Returns false if a value of the result is not finite.
//
// scratch   memory of one thread: `scratch_floats` floats
bool run_layer(const Run& run, int stage, int band, int chunk, float* scratch) {
  const Layer& layer = run.network.layers[stage - 1];
  const size_t cell = size_t(kCell) * kLanes;
  // An odd number of cache lines from one transformed value to the next: an even number would use few cache sets.
  const size_t lines = kLanes * sizeof(float) >= 64 ? 1 : 64 / (kLanes * sizeof(float));
  const size_t step = (layer.inputs * kTall / lines | 1) * lines + (layer.inputs * kTall % lines ? 2 * lines : 0);
  float *inputs = scratch, *products = scratch + kTaps * step * kLanes;
  float* pixels = products + size_t(kTaps) * kOutputs * kTall * kLanes;

  const float* around[3][3];
  for (int y = 0; y < 3; y++)
    for (int x = 0; x < 3; x++) around[y][x] = run.block_or_zeros(stage - 1, band + y - 1, chunk + x - 1);
  for (int k = 0; k < layer.inputs; k++) {
    const float* channel[3][3];
    for (int i = 0; i < 9; i++) channel[i / 3][i % 3] = around[i / 3][i % 3] + k * cell;
    if (k + 2 < layer.inputs) prefetch_around(channel, 2 * cell);
    transform_block(channel, inputs + k * kTall * kLanes, step);
  }
  float* out = layer.after == After::kPixels ? pixels : run.block(stage, band, chunk);
  const float* weights = layer.weights.data();
  for (int first = 0; first < layer.outputs;) {
    const int count = group_size(layer.outputs, first, kOutputs);
    float* to = out + first * cell;
    const float* bias = layer.bias.data() + first;
    if (layer.after == After::kSum) convolve_pointwise(run, layer, band, chunk, to, first, count);
    multiply({kTaps, layer.inputs, inputs, kTall * kLanes, step * kLanes, weights, size_t(layer.inputs) * count,
              products, kTall * kLanes, size_t(count) * kTall * kLanes, false}, count);
    switch (layer.after) {
      case After::kSilu: finish_block<After::kSilu>(products, count, bias, to, nullptr); break;
      case After::kGate:
        finish_block<After::kGate>(products, count, bias, to, run.block(layer.residual, band, chunk) + first * cell);
        break;
      case After::kSum: finish_block<After::kSum>(products, count, bias, to, nullptr); break;
      default: finish_block<After::kNothing>(products, count, bias, to, nullptr);
    }
    weights += size_t(kTaps) * layer.inputs * count;
    first += count;
  }
  if (layer.after == After::kPixels) return write_block(run, band, chunk, pixels);
  clear_outside(run, band, chunk, out, layer.outputs);
  return true;
}

const Kernels kKernels = {kName, kLanes, kOutputs, read_block, run_layer};
